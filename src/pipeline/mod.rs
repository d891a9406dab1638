//! The definition of a pipeline: model, strict reading, graph, params.
//!
//! Everything here is a pure function of the bytes that it is given. What is
//! wrong with a definition is found where it stands: each error knows file,
//! line and column and says what would be right.

mod check;
mod claims;
mod definition;
mod edit;
mod environment;
mod expand;
mod field;
mod graph;
mod json;
mod matrix;
mod model;
mod overlap;
mod params;
mod problem;
mod reader;
mod schema;
mod settings;
mod step;
mod suggest;
mod template;
mod tolerance;

pub use definition::{Definition, read};
pub use edit::{Addition, Edited, edit};
pub use environment::{Environment, Image, Python, Runtime};
pub use graph::{Circle, Graph, Reason, order};
pub use model::{
    COMBINATION_MARK, Determinism, Home, Isolate, NAME_MAX_CHARS, ParamsSource, Pipeline, Resources, Run, Step,
    StepEnv, TIMEOUT_MAX_S, VERSION_VARIABLE,
};
pub use params::{Params, ParamsError};
pub use problem::{DefinitionError, Place, Problem};
pub use schema::schema;
pub use settings::{
    Observe, RemoteUse, SETTINGS, SETTINGS_NAME, Settings, Trust, read_settings, with_remote, without_remote,
};
pub use suggest::closest;
pub use tolerance::{Level, Tolerance};

#[cfg(test)]
mod tests;
