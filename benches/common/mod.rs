//! What the benchmarks share: a place to work in, a clock around a program, and the rows that come of it.

pub(crate) mod child;
pub(crate) mod facts;
pub(crate) mod image;
pub(crate) mod report;
pub(crate) mod row;
pub(crate) mod scratch;
pub(crate) mod size;
