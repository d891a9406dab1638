//! What of the machine explains a difference and decides nothing: it goes into the record of a run, and not into a key.
//!
//! Read from files and variables; nothing is executed. What cannot be told is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::PASSED;
use crate::{disk, host};

/// The instructions by which numeric libraries choose their code, by the beginning of the kernel's names for them.
const FEATURES: [&str; 14] =
    ["sse", "ssse3", "avx", "fma", "f16c", "bmi", "amx", "xop", "neon", "asimd", "sve", "sme", "fphp", "i8mm"];
/// Where the C library lies on the distributions there are.
const C_LIBRARIES: [&str; 6] = [
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/usr/lib/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// Returns the facts of this machine by name: system, kernel, C library, processors, GPUs, and what the user set.
///
/// Costs a read of the C library and of some small files.
pub fn machine_facts() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([
        ("kernel".to_owned(), host::kernel()),
        ("processors".to_owned(), host::processors().to_string()),
        ("umask".to_owned(), format!("{:03o}", disk::umask())),
    ]);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let optional = [
        ("os", os(&read("/etc/os-release"))),
        ("libc", libc()),
        ("cpu", field(&cpu, "model name")),
        ("cpu features", features(&cpu)),
        ("gpu", gpus(Path::new("/proc/driver/nvidia/gpus"))),
        ("gpu driver", driver(&read("/proc/driver/nvidia/version"))),
        ("cuda", cuda()),
        ("locale", host::variable("LC_ALL").or_else(|| host::variable("LANG"))),
        ("time zone", time_zone()),
    ];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    facts.extend(PASSED.into_iter().filter_map(|name| Some((format!("given {name}"), host::variable(name)?))));
    facts
}

/// Returns whether a fact only says by which way something was found that is told itself.
pub fn is_only_a_way(fact: &str) -> bool {
    fact.starts_with("given ")
}

fn os(release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    value("PRETTY_NAME").or_else(|| value("NAME"))
}

/// Returns what the C library calls itself.
fn libc() -> Option<String> {
    let path = C_LIBRARIES.into_iter().find(|path| Path::new(path).is_file())?;
    if path.contains("musl") {
        return Some("musl".to_owned());
    }
    glibc(&fs::read(path).ok()?)
}

fn glibc(library: &[u8]) -> Option<String> {
    let said = library.split(|byte| *byte == 0 || *byte == b'\n').find(|text| text.starts_with(b"GNU C Library"))?;
    let said = std::str::from_utf8(said).ok()?;
    let version = said.split_once("release version ")?.1.trim_end_matches('.');
    Some(format!("glibc {version}"))
}

fn field(cpu: &str, name: &str) -> Option<String> {
    let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn features(cpu: &str) -> Option<String> {
    let all = field(cpu, "flags").or_else(|| field(cpu, "Features"))?;
    let mut features: Vec<&str> =
        all.split_whitespace().filter(|flag| FEATURES.iter().any(|start| flag.starts_with(start))).collect();
    features.sort_unstable();
    Some(features.join(" ")).filter(|features| !features.is_empty())
}

/// Returns the models of the GPUs, in the order of their addresses.
fn gpus(directory: &Path) -> Option<String> {
    let mut places: Vec<_> = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    places.sort();
    let model = |place: &std::path::PathBuf| field(&fs::read_to_string(place.join("information")).ok()?, "Model");
    let models: Vec<String> = places.iter().filter_map(model).collect();
    Some(models.join(", ")).filter(|models| !models.is_empty())
}

/// Returns the version of NVIDIA's kernel module.
fn driver(version: &str) -> Option<String> {
    let line = version.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.split('.').count() > 1 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn cuda() -> Option<String> {
    let home = host::variable("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".to_owned());
    let text = fs::read(Path::new(&home).join("version.json")).ok()?;
    let told: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(told.get("cuda")?.get("version")?.as_str()?.to_owned())
}

fn time_zone() -> Option<String> {
    let linked = || {
        let target = fs::canonicalize("/etc/localtime").ok()?.to_str()?.to_owned();
        Some(target.split_once("zoneinfo/")?.1.to_owned())
    };
    host::variable("TZ").or_else(linked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Durability, write_whole};

    #[test]
    fn the_machine_is_told_from_its_own_files() {
        assert_eq!(os("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").as_deref(), Some("Debian GNU/Linux 12"));
        assert_eq!(os(""), None);
        let library = b"\x7fELF\0x\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright\0";
        assert_eq!(glibc(library).as_deref(), Some("glibc 2.36"));
        let cpu = "processor\t: 0\nmodel name\t: A CPU @ 2GHz\nflags\t\t: fpu sse2 avx512f avx2 fma hypervisor\n";
        assert_eq!(field(cpu, "model name").as_deref(), Some("A CPU @ 2GHz"));
        assert_eq!(features(cpu).as_deref(), Some("avx2 avx512f fma sse2"));
        let nvidia = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\nGCC version: 12.2\n";
        assert_eq!(driver(nvidia).as_deref(), Some("535.129.03"));
        assert_eq!(driver(""), None);
    }

    #[test]
    fn gpus_are_those_that_the_driver_lists() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(gpus(root.path()), None);
        for (place, model) in [("0000:02:00.0", "B"), ("0000:01:00.0", "A")] {
            let text = format!("Model: \t\t {model}\nIRQ: 1\n");
            write_whole(&root.path().join(place).join("information"), text.as_bytes(), Durability::Deferred).unwrap();
        }
        assert_eq!(gpus(root.path()).as_deref(), Some("A, B"));
    }

    #[test]
    fn this_machine_has_a_system_a_kernel_and_a_processor() {
        let facts = machine_facts();
        for name in ["os", "kernel", "processors", "umask"] {
            assert!(facts.get(name).is_some_and(|value| !value.is_empty()), "{name}: {facts:?}");
        }
    }
}
