//! `pv`: Git-backed, content-addressed versioning of data and machine-learning pipelines.
//!
//! The modules are rooms on floors; a room imports only from lower floors, and
//! each heavy dependency has one door. `docs/architecture.md` is the plan of
//! the house, `tests/it/architecture.rs` holds the code to it.

pub mod disk;
pub mod exec;
pub mod git;
pub mod hash;
pub mod host;
pub mod object;
pub mod path;
pub mod pipeline;
pub mod store;
pub mod yaml;
