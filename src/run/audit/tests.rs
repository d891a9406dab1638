//! What is told of a definition, and above all what is not.

use super::*;
use crate::pipeline;

const FILE: &str = "file 0123";

fn rules() -> Rules {
    Rules::new(vec!["/home/ada".into()])
}

fn seen(reads: &[(&str, &str)]) -> Seen {
    let reads: BTreeMap<String, String> =
        reads.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
    let readers = reads.keys().map(|path| (path.clone(), "python3".to_owned())).collect();
    Seen { rung: Rung::Notify, is_complete: true, reads, readers, ..Seen::default() }
}

fn audited(step: &str, seen: &Seen) -> Audited {
    let text = format!("params: params.yaml\nsteps:\n  other: {{run: x, outputs: [raw]}}\n  a: {step}\n");
    let definition = pipeline::read(text.as_bytes(), "x").unwrap();
    audit(&definition.pipeline, &definition.pipeline.steps[1], seen, &rules())
}

fn undeclared(step: &str, reads: &[(&str, &str)]) -> Vec<String> {
    audited(step, &seen(reads)).undeclared.into_iter().map(|read| read.path).collect()
}

#[test]
fn a_step_that_declares_what_it_reads_is_not_reported() {
    let step = "{run: python3 steps/train.py --config=conf/a.yaml, inputs: [data/raw, lib/util.py], params: [rate], outputs: [out/model, work/m]}";
    let empty = format!("file {}", Digest::of(b""));
    let reads = [
        ("steps/train.py", FILE),
        ("conf/a.yaml", FILE),
        ("lib/util.py", FILE),
        ("lib/__init__.py", &empty),
        ("data/raw/1.csv", FILE),
        ("data/raw", "directory 99"),
        ("params.yaml", FILE),
        // What Python does to find modules, and `open` to find files.
        ("steps", "listing 01"),
        (".", "listing 02"),
        ("steps/numpy.py", "absent"),
        ("lib", "status directory"),
        ("data", "link 05"),
        ("data", "listing 06"),
        ("out", "listing 07"),
        ("lib/__pycache__/util.cpython-311.pyc", FILE),
        (".git/HEAD", FILE),
        (".pipeline/pipeline.yaml", FILE),
        ("out/model/part", FILE),
        ("/usr/share/zoneinfo/UTC", FILE),
        ("/home/ada/.config/matplotlib/matplotlibrc", FILE),
        ("/home/ada/nothing", "absent"),
    ];
    let audited = audited(step, &seen(&reads));
    assert!(audited.is_clean(), "{audited:?}");
    assert_eq!(audited.additions(), []);
}

#[test]
fn what_is_read_and_not_declared_is_told_with_its_reader() {
    let step = "{run: python3 steps/train.py data, inputs: [data/raw/1.csv], workdir: steps}";
    let reads = [
        ("lib/util.py", FILE),
        ("data/raw/2.csv", "executable 1"),
        ("params.yaml", FILE),
        ("steps/x.csv", FILE),
        ("extra", "listing 03"),
        ("extra/a", FILE),
        ("names", "listing 03"),
        ("flag", "status file 3"),
        ("whole", "directory 4"),
        ("pkg/__init__.py", FILE),
        ("/home/ada/x.csv", FILE),
        ("/data/parts", "listing 08"),
    ];
    assert_eq!(
        undeclared(step, &reads),
        [
            "/data/parts",
            "/home/ada/x.csv",
            "data/raw/2.csv",
            "extra/a",
            "flag",
            "lib/util.py",
            "names",
            "params.yaml",
            "pkg/__init__.py",
            "steps/x.csv",
            "whole"
        ]
    );
    assert_eq!(audited(step, &seen(&reads)).undeclared[0].by, "python3");
}

#[test]
fn a_module_that_the_command_starts_declares_itself() {
    let step = "{run: python3 -m pkg.train, inputs: []}";
    let reads = [("pkg/train.py", FILE), ("pkg/__init__.py", FILE), ("pkg/util.py", FILE)];
    assert_eq!(undeclared(step, &reads), ["pkg/util.py"]);
}

#[test]
fn without_inputs_what_is_read_in_the_project_is_the_declaration() {
    let reads = [("lib/util.py", FILE), ("/home/ada/x.csv", FILE)];
    assert_eq!(undeclared("{run: python3 a.py}", &reads), ["/home/ada/x.csv"]);
    assert_eq!(undeclared("{run: python3 a.py, inputs: []}", &reads), ["/home/ada/x.csv", "lib/util.py"]);
}

#[test]
fn the_other_omissions_are_told_too() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<String>>();
    let mut seen = Seen {
        unread: texts(&["raw", "gone"]),
        writes: texts(&["out", "out/a", "cache.bin", "x/__pycache__/a.pyc", "/home/ada/left", "/dev/null"]),
        network: texts(&["example.org:443"]),
        variables: texts(&["LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"]),
        ..seen(&[])
    };
    let step = "{run: x, inputs: [raw], outputs: [out/a], env: [CUDA_VISIBLE_DEVICES]}";
    let found = audited(step, &seen);
    assert_eq!(found.unused, ["raw"]);
    assert_eq!(found.writes, ["/home/ada/left", "cache.bin"]);
    assert_eq!(found.network, ["example.org:443"]);
    assert_eq!(found.env, ["LD_LIBRARY_PATH"]);
    let lines: Vec<_> = found.additions().iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["outputs: [cache.bin]", "env: [LD_LIBRARY_PATH]", "network: true"]);
    seen.is_complete = false;
    assert_eq!(audited(step, &seen).unused, Vec::<String>::new(), "what escaped the observer may have been read");
    seen.rung = Rung::None;
    assert!(audited(step, &seen).is_clean(), "nothing is claimed that was not observed");
    let vouched = audited("{run: x, network: true}", &Seen { rung: Rung::Ptrace, ..seen });
    assert_eq!(vouched.network, Vec::<String>::new());
}

#[test]
fn a_fix_declares_what_fits_and_leaves_the_rest_to_the_user() {
    let text = "steps:\n  a:\n    run: x  # go\n    inputs: [i]\n    outputs: [o]\n  b:\n    run: y\n    inputs: &all [o]\n    outputs: [p]\n  c: {run: z, inputs: *all, outputs: [q]}\n";
    let undeclared = |paths: &[&str]| {
        paths.iter().map(|path| Undeclared { path: (*path).to_owned(), by: "x".to_owned() }).collect::<Vec<_>>()
    };
    let of = |step: &str, paths: &[&str], writes: &[&str]| Audited {
        step: step.to_owned(),
        rung: Rung::Notify,
        undeclared: undeclared(paths),
        writes: writes.iter().map(|path| (*path).to_owned()).collect(),
        ..Audited::default()
    };
    let fixed = fix(text, "x", &[of("a", &["j", "/data/x"], &["p", "r"]), of("b", &["j"], &[])]);
    assert_eq!(fixed.text, text.replace("[i]", "[i, j]").replace("[o]\n  b", "[o, r]\n  b"));
    let lines =
        |additions: &[Addition]| additions.iter().map(|a| format!("{} {a}", a.step().unwrap())).collect::<Vec<_>>();
    assert_eq!(lines(&fixed.added), ["a inputs: [j]", "a outputs: [r]"]);
    assert_eq!(lines(&fixed.by_hand), ["a outputs: [p]", "b inputs: [j]"]);
}

#[test]
fn a_matrix_is_fixed_only_by_what_all_its_combinations_leave_out() {
    let text = "steps:\n  a:\n    matrix: {x: [1, 2]}\n    run: go ${matrix.x}\n    inputs: [i]\n    outputs: ['out/${matrix.x}']\n";
    let of = |step: &str, paths: &[&str]| Audited {
        step: step.to_owned(),
        rung: Rung::Notify,
        undeclared: paths.iter().map(|path| Undeclared { path: (*path).to_owned(), by: "x".to_owned() }).collect(),
        ..Audited::default()
    };
    let fixed = fix(text, "x", &[of("a@x=1", &["j", "one"]), of("a@x=2", &["j"])]);
    assert_eq!(fixed.text, text.replace("[i]", "[i, j]"));
    assert_eq!(fixed.by_hand.iter().map(ToString::to_string).collect::<Vec<_>>(), ["inputs: [one]"]);
}
