//! The definition of a pipeline: model, strict reading, graph, params.
//!
//! Everything here is a pure function of the bytes that it is given. What is
//! wrong with a definition is found where it stands: each error knows file,
//! line and column and says what would be right.

mod check;
mod definition;
mod edit;
mod field;
mod graph;
mod json;
mod model;
mod overlap;
mod params;
mod problem;
mod reader;
mod schema;
mod step;
mod suggest;

pub use definition::{Definition, read};
pub use edit::{Addition, Edited, edit};
pub use graph::{Circle, Graph, Reason, order};
pub use model::{
    Environment, NAME_MAX_CHARS, ParamsSource, Pipeline, Run, Step, StepEnv, TIMEOUT_MAX_S, VERSION_VARIABLE,
};
pub use params::{Params, ParamsError};
pub use problem::{DefinitionError, Place, Problem};
pub use schema::schema;

#[cfg(test)]
mod tests;
