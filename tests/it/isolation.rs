//! What a step sees and what it leaves: strict steps, homes, what was looked for in vain, and the kept checkout.

use crate::sandbox::Sandbox;

#[test]
fn a_strict_step_sees_what_it_declares_and_is_told_what_to_declare() {
    let project = Sandbox::with_pipeline(
        "steps:\n  count:\n    isolate: strict\n    inputs: [in.txt]\n    outputs: [out.txt]\n    \
         run: sh count.sh\n",
    );
    // What the command itself names needs no declaration; what a script reads does.
    project.write("count.sh", "ls > out.txt && cat in.txt side/other.txt >> out.txt\n");
    project.write("in.txt", "one\n");
    project.write("side/other.txt", "two\n");
    let output = project.pv_command(&["run"]).output().unwrap();
    let told = project.tell(&output);
    assert!(told.contains("cat: side/other.txt: No such file or directory"), "{told}");
    assert!(
        told.contains(
            "  it looked in vain: `side/other.txt` is hidden from the step, which is strict and does not declare it\n    \
               add to step `count`: inputs: [side/other.txt]"
        ),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(3));
    let definition = project.read(".pipeline/pipeline.yaml");
    project.write(".pipeline/pipeline.yaml", definition.replace("[in.txt]", "[in.txt, side/other.txt]"));
    project.pv_ok(&["run"]);
    assert_eq!(project.read("out.txt"), "count.sh\nin.txt\nout.txt\nside\none\ntwo\n");
}

#[test]
fn a_strict_step_reads_nothing_outside_and_reaches_nobody() {
    let project = Sandbox::new();
    let outside = project.beside("outside.csv");
    std::fs::write(&outside, "1\n").unwrap();
    project.write(
        "look.py",
        "import socket, sys\n\
         try:\n    open(sys.argv[1]).read(); print('read')\nexcept FileNotFoundError:\n    print('not there')\n\
         try:\n    socket.create_connection(('192.0.2.1', 9), 5); print('reached')\n\
         except OSError as error:\n    print(type(error).__name__, error.errno)\n",
    );
    project.write(
        ".pipeline/pipeline.yaml",
        format!(
            "steps:\n  look:\n    isolate: strict\n    inputs: []\n    outputs: [o]\n    run: python3 look.py {} > o\n",
            outside.display()
        ),
    );
    project.pv_ok(&["run"]);
    assert_eq!(project.read("o"), "not there\nOSError 101\n", "101: the network is unreachable");
}

/// A project with a file that its one step looks for, and the ways in which that step is defined one after the other.
struct Looking {
    project: Sandbox,
}

impl Looking {
    /// Returns one whose step runs `script`, so that its command names nothing else.
    fn new(script: &str) -> Self {
        let project = Sandbox::new();
        project.write(".gitignore", "/out.txt\n");
        project.write("in.txt", "in\n");
        project.write("extra.txt", "extra\n");
        project.write("look.sh", script);
        Self { project }
    }

    /// Runs the step with these keys beside its command and its output; returns its verdict, why, and what it wrote.
    fn with(&self, keys: &[&str]) -> [String; 3] {
        let keys = keys.join("\n    ");
        let definition = format!("steps:\n  look:\n    run: sh look.sh\n    outputs: [out.txt]\n    {keys}\n");
        self.project.write(".pipeline/pipeline.yaml", definition);
        let (answer, code) = self.project.json(&["run"]);
        assert_eq!(code, 0, "{answer}");
        let text = |key: &str| answer["steps"][0][key].as_str().unwrap().to_owned();
        [text("verdict"), text("reason"), self.project.read("out.txt").trim_end().to_owned()]
    }
}

const FIRST: &str = "it has not run before";
const REUSED: &str = "nothing it depends on changed";

#[test]
fn what_a_strict_step_wrote_is_not_taken_for_what_it_writes_when_it_sees_all_nor_the_other_way_round() {
    // How much a step was shown was in no key: whoever dropped `strict` kept the result of a step that had seen less,
    // and whoever added it that of one that had seen more.
    let script = "test -e extra.txt && cp extra.txt out.txt || echo none > out.txt";
    let (observed, strict) = (["inputs: [in.txt]"], ["inputs: [in.txt]", "isolate: strict"]);
    let dropped = Looking::new(script);
    assert_eq!(dropped.with(&strict), ["ran", FIRST, "none"]);
    assert_eq!(dropped.with(&observed), ["ran", "`isolate` strict -> observe", "extra"]);
    assert_eq!(dropped.with(&strict), ["reused", REUSED, "none"], "it is known what comes of that");
    let added = Looking::new(script);
    assert_eq!(added.with(&observed), ["ran", FIRST, "extra"]);
    added.project.write(
        ".pipeline/pipeline.yaml",
        format!("{}    isolate: strict\n", added.project.read(".pipeline/pipeline.yaml")),
    );
    assert_eq!(
        added.project.json(&["why", "look"]).0["changes"],
        serde_json::json!([{ "kind": "environment", "name": "isolate", "old": "observe", "new": "strict" }])
    );
    assert_eq!(added.with(&strict), ["ran", "`isolate` observe -> strict", "none"]);
}

#[test]
fn what_a_strict_step_is_shown_decides_also_where_it_looked_in_vain_before() {
    // To look in vain for what was hidden made the same key as to read it once it was declared, so that a strict step
    // kept the result of before its author had done what the hint said.
    let script = "cat extra.txt > out.txt 2> /dev/null || echo none > out.txt";
    let (less, more) = (["isolate: strict", "inputs: [in.txt]"], ["isolate: strict", "inputs: [in.txt, extra.txt]"]);
    let declares = Looking::new(script);
    assert_eq!(declares.with(&less), ["ran", FIRST, "none"]);
    assert_eq!(declares.with(&more), ["ran", "its list of inputs changed", "extra"]);
    let forgets = Looking::new(script);
    assert_eq!(forgets.with(&more), ["ran", FIRST, "extra"]);
    assert_eq!(forgets.with(&less), ["ran", "its list of inputs changed", "none"]);
    assert_eq!(forgets.with(&["isolate: strict", "inputs: [in.txt]"]), ["reused", REUSED, "none"]);
}

#[test]
fn another_home_is_a_reason_with_a_name() {
    let step = Looking::new("ls -a ~ > out.txt");
    assert_eq!(step.with(&["inputs: []"])[..2], ["ran", FIRST]);
    assert_eq!(step.with(&["inputs: []", "home: host"])[..2], ["ran", "`home` own -> host"]);
    assert_eq!(step.with(&["inputs: []"])[..2], ["reused", REUSED]);
}

#[test]
fn what_a_strict_step_wrote_without_a_network_is_not_taken_once_it_has_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let asking = Looking::new("exec python3 ask.py > out.txt");
    asking.project.write(
        "ask.py",
        format!(
            "import socket\ntry:\n    socket.create_connection(('127.0.0.1', {}), 20)\n    print('reached')\n\
             except OSError:\n    print('nobody')\n",
            listener.local_addr().unwrap().port()
        ),
    );
    assert_eq!(asking.with(&["isolate: strict", "inputs: [ask.py]"]), ["ran", FIRST, "nobody"]);
    let with_network = ["isolate: strict", "inputs: [ask.py]", "network: true"];
    assert_eq!(asking.with(&with_network), ["ran", "`network` false -> true", "reached"]);
    assert_eq!(asking.with(&with_network), ["reused", REUSED, "reached"]);
}

#[test]
fn a_file_that_git_ignores_is_named_with_the_line_that_brings_it_in() {
    let project =
        Sandbox::with_pipeline("steps:\n  load:\n    outputs: [out.txt]\n    run: wc -l < data/raw.csv > out.txt\n");
    project.write(".gitignore", "data/\n");
    project.write("data/raw.csv", "1\n");
    let (answer, code) = project.json(&["run"]);
    assert_eq!(code, 3);
    assert_eq!(
        answer["steps"][0]["failure"]["hints"],
        serde_json::json!([{
            "hint": "`data/raw.csv` lies in the working tree, but git ignores it, so the snapshot is without it",
            "step": null,
            "add": "data: [data/raw.csv]",
        }])
    );
    let definition = project.read(".pipeline/pipeline.yaml");
    project.write(".pipeline/pipeline.yaml", format!("data: [data/raw.csv]\n{definition}"));
    project.pv_ok(&["run"]);
    assert_eq!(project.read("out.txt"), "1\n");
}

#[test]
fn a_variable_and_a_file_at_home_that_the_step_was_not_given_are_named() {
    let project = Sandbox::with_pipeline(
        "steps:\n  ask:\n    outputs: [o]\n    run: |\n      set -u\n      cat ~/.service/key > o || echo none > o\n      echo $SERVICE_TOKEN >> o\n",
    );
    let home = project.beside("user-home");
    std::fs::create_dir_all(home.join(".service")).unwrap();
    std::fs::write(home.join(".service/key"), "k\n").unwrap();
    let run = || {
        let mut command = project.pv_command(&["run"]);
        command.env("HOME", &home).env("XDG_CACHE_HOME", project.beside("cache")).env("SERVICE_TOKEN", "t");
        command.output().unwrap()
    };
    let told = project.tell(&run());
    assert!(told.contains("add to step `ask`: home: host"), "{told}");
    assert!(told.contains("add to step `ask`: env: [SERVICE_TOKEN]"), "{told}");
    let definition = project.read(".pipeline/pipeline.yaml");
    project.write(
        ".pipeline/pipeline.yaml",
        definition.replace("    outputs:", "    home: host\n    env: [SERVICE_TOKEN]\n    outputs:"),
    );
    let output = run();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(project.read("o"), "k\nt\n");
    // What it read there counts.
    std::fs::write(home.join(".service/key"), "other\n").unwrap();
    let told = project.tell(&run());
    assert!(told.contains(".service/key` changed"), "{told}");
    assert_eq!(project.read("o"), "other\nt\n");
}

#[test]
fn what_a_step_wrote_without_declaring_it_reaches_nobody_and_the_next_one_is_told_whose_it_was() {
    let project = Sandbox::with_pipeline(
        "steps:\n  one:\n    outputs: [a]\n    run: echo 1 > a; echo 2 > stray.txt\n  \
         two:\n    outputs: [b]\n    run: cat a stray.txt > b\n",
    );
    let told = project.tell(&project.pv_command(&["run"]).output().unwrap());
    assert!(
        told.contains(
            "  it looked in vain: `stray.txt` was written by step `one`, which does not declare it, so nobody else gets it\n    \
               add to step `one`: outputs: [stray.txt]"
        ),
        "{told}"
    );
}

#[test]
fn the_base_checkout_follows_every_kind_of_change() {
    let listing = "find . -not -path ./o -printf '%p %y %m %s %l\\n' | sort > o; \
                   find . -type f -not -name o -exec sha1sum {} + | sort >> o";
    let definition =
        format!("data: [raw]\nsteps:\n  look:\n    cache: false\n    outputs: [o]\n    run: \"{listing}\"\n");
    let project = Sandbox::with_pipeline(&definition);
    project.write(".gitignore", "/raw\n");
    let path = |path: &str| project.path(path);
    let edits: [&dyn Fn(); 9] = [
        &|| {
            project.write("a/b/c", "1\n");
            project.write("x", "x\n");
            project.write("raw/1/2", "data\n");
        },
        &|| project.write("a/b/c", "22\n"),
        // A directory becomes a file.
        &|| {
            std::fs::remove_dir_all(path("a")).unwrap();
            project.write("a", "file\n");
        },
        // And a file a directory.
        &|| {
            std::fs::remove_file(path("a")).unwrap();
            project.write("a/b/d", "3\n");
        },
        &|| {
            std::fs::remove_file(path("x")).unwrap();
            std::os::unix::fs::symlink("a/b", path("x")).unwrap();
        },
        &|| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path("a/b/d"), std::fs::Permissions::from_mode(0o755)).unwrap();
        },
        &|| std::fs::rename(path("raw/1"), path("raw/new")).unwrap(),
        &|| {
            // A data root becomes a part of the tree.
            project.write(".gitignore", "");
            project.write(".pipeline/pipeline.yaml", definition.replace("data: [raw]\n", ""));
        },
        &|| std::fs::remove_dir_all(path("raw")).unwrap(),
    ];
    for (number, edit) in edits.iter().enumerate() {
        edit();
        let run = |cache: &str| {
            let output = project.pv_command(&["run"]).env("XDG_CACHE_HOME", project.beside(cache)).output().unwrap();
            assert!(output.status.success(), "{}", project.tell(&output));
            project.read("o")
        };
        let changed = run("cache");
        assert_eq!(changed, run(&format!("fresh-{number}")), "after edit {number}");
        let bases = std::fs::read_dir(project.beside("cache/pv/work")).unwrap().flatten().flat_map(|place| {
            std::fs::read_dir(place.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap())
        });
        assert_eq!(bases.filter(|name| name.starts_with("base-")).count(), 1, "it is changed, not laid out again");
    }
}
