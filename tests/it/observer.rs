//! A step that itself runs a pipeline: what happens inside is seen from outside, and inside too.

use crate::sandbox::Sandbox;

/// Makes a repository in the step's own directory, and runs the pipeline there.
const INNER: &str = "#!/bin/sh
set -e
mkdir \"$TMPDIR/inner\"
cp -r inner/. \"$TMPDIR/inner\"
cd \"$TMPDIR/inner\"
git init --quiet .
printf '/out.txt\\n' > .gitignore
git add .
git -c user.name=a -c user.email=a@example.org commit --quiet -m one
\"$PV\" --json run > \"$TMPDIR/ran\"
\"$PV\" --json show \"$(sed -n 's/.*\"run\": *\"\\([0-9a-f]*\\)\".*/\\1/p' \"$TMPDIR/ran\")\" > \"$TMPDIR/shown\"
cat out.txt
";

#[cfg(target_os = "linux")]
#[test]
fn a_pipeline_in_a_step_of_a_pipeline_is_observed_in_both() {
    let project = Sandbox::with_pipeline(
        "steps:
  outer:
    env: [PV]
    outputs: [result.txt, shown.json]
    run: sh run.sh > result.txt && cp $TMPDIR/shown shown.json
",
    );
    project.write(".gitignore", "/result.txt\n/shown.json\n");
    project.write("run.sh", INNER);
    project.write("inner/in.txt", "text\n");
    project
        .write("inner/.pipeline/pipeline.yaml", "steps:\n  inner: {run: cat in.txt > out.txt, outputs: [out.txt]}\n");
    project.commit("first");
    let mut command = project.pv_command(&["--json", "run"]);
    let output = command.env("PV", env!("CARGO_BIN_EXE_pv")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(project.read("result.txt"), "text\n");
    let shown = project.read("shown.json");
    let inner: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let ran: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (outer, _) = project.json(&["show", ran["run"].as_str().unwrap()]);
    let rung = |shown: &serde_json::Value| rung_in(shown).unwrap_or_else(|| panic!("no rung in {shown}"));
    assert_eq!(rung(&outer), "notify");
    assert_eq!(rung(&inner), "ptrace");
}

/// Returns the first value of a key `rung` anywhere in an answer.
fn rung_in(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => {
            map.get("rung").and_then(|rung| rung.as_str().map(str::to_owned)).or_else(|| map.values().find_map(rung_in))
        }
        serde_json::Value::Array(list) => list.iter().find_map(rung_in),
        _ => None,
    }
}
