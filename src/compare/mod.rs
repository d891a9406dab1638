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
mod foreign;
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

/// A format that files are known by from their first bytes.
struct Format {
    word: &'static str,
    is_it: fn(&[u8]) -> bool,
    /// Compares two files; `None` if one of them is not what it seems.
    compare: fn(&mut Report, &[u8], &[u8]) -> Option<()>,
}

const FORMATS: [Format; 10] = [
    Format { word: "tar", is_it: tar::is_it, compare: compare_tar },
    Format { word: "npy", is_it: npy::is_it, compare: npy::compare },
    Format { word: "torch", is_it: pickle::older::is_it, compare: pickle::older::compare },
    Format { word: "parquet", is_it: parquet::is_it, compare: parquet::compare },
    Format { word: "arrow", is_it: arrow::is_it, compare: arrow::compare },
    Format { word: "png", is_it: image::is_png, compare: image::compare_png },
    Format { word: "jpeg", is_it: image::is_jpeg, compare: image::compare_jpeg },
    Format { word: "sqlite", is_it: sqlite::is_it, compare: sqlite::compare },
    Format { word: "safetensors", is_it: safetensors::is_it, compare: safetensors::compare },
    // The last one, as it is only known to be one when it has been read.
    Format { word: "pickle", is_it: pickle::may_be_it, compare: pickle::compare },
];

/// Compares two files by what they begin with; `None` if that says nothing, or one of them is not what it seems.
fn binaries(report: &mut Report, name: &str, old: &[u8], new: &[u8]) -> Option<&'static str> {
    if let Some(method) = Method::of_file(old).filter(|method| Method::of_file(new) == Some(*method)) {
        packed::compare_files(report, method, name, old, new)?;
        return Some(method.word());
    }
    if zip::is_it(old) && zip::is_it(new) {
        let (Some(old), Some(new)) = (zip::members(old), zip::members(new)) else {
            say_unreadable(report, "zip", zip::members(old).is_some(), zip::members(new).is_some());
            return None;
        };
        if torch::compare(report, &old, &new).is_some() {
            return Some("torch");
        }
        packed::compare_members(report, &old, &new);
        return Some("zip");
    }
    let format = FORMATS.iter().find(|format| (format.is_it)(old) && (format.is_it)(new))?;
    if (format.compare)(report, old, new).is_some() {
        return Some(format.word);
    }
    if format.word != "pickle" {
        // Whichever cannot be read cannot be compared with itself either.
        let is_readable = |bytes: &[u8]| (format.compare)(&mut report.apart(), bytes, bytes).is_some();
        say_unreadable(report, format.word, is_readable(old), is_readable(new));
    }
    None
}

/// Says which of two files is not compared as what it seems to be.
fn say_unreadable(report: &mut Report, word: &str, is_old_readable: bool, is_new_readable: bool) {
    let which = match (is_old_readable, is_new_readable) {
        (false, false) => "neither",
        (false, true) => "the old one cannot",
        (true, false) => "the new one cannot",
        // Each of them is understood, and the two together are too much.
        (true, true) => return,
    };
    let can = if which == "neither" { " can" } else { "" };
    report.note(format!("{which}{can} be read as {word}"));
}

fn compare_tar(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    packed::compare_members(report, &tar::members(old)?, &tar::members(new)?);
    Some(())
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
