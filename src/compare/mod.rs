//! How two outputs of a step differ, and by how much.
//!
//! Pure: two things go in, one answer comes out. Files are read by what is in them, then by their names; nothing that is
//! read is ever executed or unpickled. Whatever the bytes are, there is an answer: what cannot be understood is compared as
//! bytes. What is made of a file is bounded in size and depth. The answer is the same whichever side is called the old one,
//! but for the words.

mod array;
mod arrow;
mod bytes;
mod config;
mod csv;
mod image;
mod json;
mod literal;
mod npy;
mod number;
mod outputs;
mod packed;
mod parquet;
mod pickle;
mod precision;
mod report;
mod safetensors;
mod shape;
mod sqlite;
mod table;
mod tar;
mod text;
mod torch;
mod tree;
mod zip;

use std::path::Path;

use packed::Method;
use precision::Precision;
use report::Report;

pub use crate::pipeline::{Level, Tolerance};
pub use outputs::{CompareError, compare_outputs, worst};
pub use report::{Comparison, Errors, FINDINGS_MAX, Finding};
pub use shape::Shape;

/// Larger files are compared byte by byte alone.
pub const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How much is made at most, for each side, of what is packed or compressed in a file and the files in it.
pub const UNPACKED_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Compares two files with the usual tolerance for numbers. See [`compare_within`].
pub fn compare_bytes(name: &str, old: &[u8], new: &[u8]) -> Comparison {
    compare_within(name, old, new, &Tolerance::default())
}

/// Compares two files called `name`, with a tolerance for numbers.
///
/// Costs time a little more than proportional to their size, and memory for a few times as much.
pub fn compare_within(name: &str, old: &[u8], new: &[u8], tolerance: &Tolerance) -> Comparison {
    let mut report = Report::new(*tolerance, UNPACKED_MAX_BYTES);
    let format = compare(&mut report, name, old, new);
    report.finish(name, format)
}

/// Compares two files, or two members of such, and returns as what.
fn compare(report: &mut Report, name: &str, old: &[u8], new: &[u8]) -> &'static str {
    if old == new {
        return "file";
    }
    report.is_canonical();
    if report.depth() < packed::DEPTH_MAX
        && let Some(format) = binaries(report, name, old, new)
    {
        return format;
    }
    if let (Some(old), Some(new)) = (text::read(old), text::read(new)) {
        return texts(report, name, old, new);
    }
    bytes::compare(report, old, new);
    "bytes"
}

/// Compares two files by what they begin with; `None` if that says nothing, or one of them is not what it seems.
fn binaries(report: &mut Report, name: &str, old: &[u8], new: &[u8]) -> Option<&'static str> {
    let both = |is: fn(&[u8]) -> bool| is(old) && is(new);
    if let Some(method) = Method::of_file(old).filter(|method| Method::of_file(new) == Some(*method)) {
        packed::compare_files(report, method, name, old, new)?;
        return Some(method.word());
    }
    if both(zip::is_it) {
        let (old, new) = (zip::members(old)?, zip::members(new)?);
        if torch::compare(report, &old, &new).is_some() {
            return Some("torch");
        }
        packed::compare_members(report, &old, &new);
        return Some("zip");
    }
    if both(tar::is_it) {
        packed::compare_members(report, &tar::members(old)?, &tar::members(new)?);
        return Some("tar");
    }
    if both(npy::is_it) {
        npy::compare(report, old, new)?;
        return Some("npy");
    }
    if both(pickle::older::is_it) {
        pickle::older::compare(report, old, new)?;
        return Some("torch");
    }
    if both(pickle::may_be_it) && pickle::compare(report, old, new).is_some() {
        return Some("pickle");
    }
    if both(parquet::is_it) {
        parquet::compare(report, old, new)?;
        return Some("parquet");
    }
    if both(arrow::is_it) {
        arrow::compare(report, old, new)?;
        return Some("arrow");
    }
    if both(image::is_png) {
        image::compare_png(report, old, new)?;
        return Some("png");
    }
    if both(image::is_jpeg) {
        image::compare_jpeg(report, old, new)?;
        return Some("jpeg");
    }
    if both(sqlite::is_it) {
        sqlite::compare(report, old, new)?;
        return Some("sqlite");
    }
    if both(safetensors::is_it) {
        safetensors::compare(report, old, new)?;
        return Some("safetensors");
    }
    None
}

/// Returns what the decoder of somebody else makes of bytes that may be anything; `None` if it fails, in whatever way.
///
/// Such decoders promise errors for damaged files, and now and then one stops with a panic instead. That is no reason to
/// leave the user without an answer.
fn foreign<T>(decode: impl FnOnce() -> Option<T>) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).ok().flatten()
}

/// Compares two texts by what the name says, or by what they look like.
fn texts(report: &mut Report, name: &str, old: &str, new: &str) -> &'static str {
    let ending =
        Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let looks_like_json = |text: &str| text.trim_start().starts_with(['{', '[']);
    match ending.as_str() {
        "csv" | "tsv" | "tab" => {
            let separator = if ending == "csv" { None } else { Some(b'\t') };
            if csv::compare(report, separator, old, new).is_some() {
                return if ending == "csv" { "csv" } else { "tsv" };
            }
        }
        "jsonl" | "ndjson" => {
            if let (Some(old), Some(new)) = (json::read_lines(old), json::read_lines(new)) {
                tree::compare(report, "$", &old, &new);
                return "jsonl";
            }
        }
        "yaml" | "yml" => {
            if let (Some(old), Some(new)) = (config::read_yaml(old), config::read_yaml(new)) {
                tree::compare(report, "$", &old, &new);
                return "yaml";
            }
        }
        "toml" => {
            if let (Some(old), Some(new)) = (config::read_toml(old), config::read_toml(new)) {
                tree::compare(report, "$", &old, &new);
                return "toml";
            }
        }
        _ => {}
    }
    if (ending == "json" || looks_like_json(old) && looks_like_json(new))
        && let (Some(old), Some(new)) = (json::read(old), json::read(new))
    {
        tree::compare(report, "$", &old, &new);
        return "json";
    }
    text::compare(report, old, new);
    "text"
}

#[cfg(test)]
mod tests;
