//! What a step takes of the machine: processors, memory, GPUs, locks.

use std::collections::BTreeSet;

use crate::yaml::{Node, Value};

use super::field::{Reader, step_name_fault, subject};
use super::model::{MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, Resources, SLOTS_MAX};
use super::problem::{Finding, quoted};
use super::reader::unknown_key;

const KEYS: [&str; 4] = ["cpus", "memory", "gpus", "locks"];

/// What other tools call the same thing.
const ELSEWHERE: [(&str, &str); 6] =
    [("cpu", "cpus"), ("threads", "cpus"), ("cores", "cpus"), ("gpu", "gpus"), ("mem", "memory"), ("lock", "locks")];

/// The units of memory, in bytes.
const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Returns what `resources` of a step says.
pub(super) fn resources(reader: &mut Reader<'_>, node: &Node, what: &str) -> Resources {
    let mut resources = Resources::default();
    let entries = reader.map(node, what, "a map with `cpus`, `memory`, `gpus` or `locks`").unwrap_or_default();
    for (key, node) in entries {
        if !KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, what, "no resource is called so", &KEYS, &ELSEWHERE);
            continue;
        }
        let what = format!("`{}` in {what}", key.text);
        if !reader.is_given(key, node, &what) {
            continue;
        }
        match key.text.as_str() {
            "cpus" => resources.cpus = reader.small(node, &what, 1, SLOTS_MAX).unwrap_or(1),
            "memory" => resources.memory_bytes = memory_bytes(reader, node, &what),
            "gpus" => resources.gpus = reader.small(node, &what, 0, SLOTS_MAX).unwrap_or_default(),
            _ => resources.locks = locks(reader, node, &what),
        }
    }
    resources
}

fn memory_bytes(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u64> {
    let Value::Text(text) = &node.value else {
        return reader.integer(node, what, MEMORY_MIN_BYTES, MEMORY_MAX_BYTES);
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let Some((_, unit)) = UNITS.iter().find(|(name, _)| *name == unit).filter(|_| digits > 0) else {
        let finding = Finding::new(format_args!("{what} is no amount of memory: {}", quoted(text)));
        reader.note(
            finding
                .at(&node.span, "expected an amount of memory")
                .hint("memory is a number of bytes, or a text such as `512MiB` or `4GiB`; 1 KiB is 1024 bytes"),
        );
        return None;
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit));
    match bytes {
        Some(bytes) if (MEMORY_MIN_BYTES..=MEMORY_MAX_BYTES).contains(&bytes) => Some(bytes),
        _ => {
            let bound =
                if bytes.is_some_and(|bytes| bytes < MEMORY_MIN_BYTES) { "at least 1MiB" } else { "at most 1024TiB" };
            let finding = Finding::new(format_args!("{what} must be {bound}, found {}", quoted(text)));
            reader.note(finding.at(&node.span, "out of range"));
            None
        }
    }
}

fn locks(reader: &mut Reader<'_>, node: &Node, what: &str) -> BTreeSet<String> {
    let item_of = subject(node, what);
    let read = |reader: &mut Reader<'_>, item: &Node| {
        let name = reader.text(item, &item_of, "the name of a lock")?;
        let Some(fault) = step_name_fault(&name) else { return Some(name) };
        reader.note(Finding::new(format_args!("{} is no name for a lock", quoted(&name))).at(&item.span, fault));
        None
    };
    reader.set(node, what, read, Clone::clone).0.into_iter().collect()
}
