//! `pv`: Git-backed, content-addressed versioning of data and machine-learning pipelines.
//!
//! The modules are rooms on floors; a room imports only from lower floors, and
//! each heavy dependency has one door. `docs/architecture.md` is the plan of
//! the house, `tests/it/architecture.rs` holds the code to it.

// Floor 0
pub mod disk;
pub mod hash;
pub mod host;
pub mod path;
pub mod yaml;

// Floor 1
pub mod object;

// Floor 2
pub mod exec;
pub mod git;
pub mod pipeline;
pub mod stat_cache;
pub mod store;

// Floor 3
pub mod compare;
pub mod environment;
pub mod record;
pub mod snapshot;

// Floor 4
pub mod damage;
pub mod diff;
pub mod retention;
pub mod revision;
pub mod run;

// Floor 5
pub mod project;
pub mod remote;
pub mod verify;

// Floor 6
pub mod cli;
