//! Where a system lets nobody make namespaces: steps are not isolated, which is said, and results are right all the same.

use std::process::Command;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// Returns a `pv` command in the project that can make no namespaces; `None`, after saying so, where that cannot be had.
#[expect(clippy::print_stderr, reason = "what is not tested must be seen")]
pub(crate) fn confined(test: &str, project: &Sandbox, arguments: &[&str]) -> Option<Command> {
    let confine = |program: &str| {
        let drop = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \
                    --securebits=+noroot \"$@\"";
        let mut command = project.command_in(&project.path(""), "unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", drop, "sh", program]);
        command
    };
    if !confine("true").output().is_ok_and(|end| end.status.success()) {
        eprintln!("NOT TESTED: {test}: this machine lets nobody make a user namespace to take the right away in");
        return None;
    }
    let mut command = confine(env!("CARGO_BIN_EXE_pv"));
    command.args(arguments);
    Some(command)
}

#[test]
fn steps_that_cannot_be_isolated_are_told_once_and_nothing_they_leave_reaches_another() {
    let project = Sandbox::with_pipeline(
        "steps:\n  \
         first:\n    inputs: []\n    outputs: [a]\n    run: cat raw > a; echo left > stray; echo more >> raw\n  \
         second:\n    inputs: [a]\n    outputs: [b]\n    run: cat a stray raw > b 2> /dev/null; ls > names || true\n  \
         third:\n    inputs: [b]\n    outputs: [c]\n    run: ls > c; cat names >> c 2> /dev/null || true\n",
    );
    project.write(".gitignore", "/a\n/b\n/c\n");
    project.write("raw", "1\n");
    project.commit("all");
    let test = "steps that cannot be isolated";
    let Some(mut run) = confined(test, &project, &["run"]) else { return };
    let output = run.output().unwrap();
    let told = project.tell(&output);
    assert!(output.status.success(), "{told}");
    let warning: Vec<_> = told.lines().skip_while(|line| !line.starts_with("warning:")).take(2).collect();
    insta::assert_snapshot!(warning.join("\n"), @"
    warning: steps are not isolated here: user namespaces are switched off, `user.max_user_namespaces` being 0 (No space left on device (os error 28))
    hint: `sudo sysctl -w user.max_user_namespaces=10000` switches them on, until the next start of the machine
    ");
    assert_eq!(told.matches("not isolated").count(), 1, "{told}");
    assert_eq!(["a", "b"].map(|path| project.read(path)), ["1\n", "1\n1\n"]);
    assert_eq!(project.read("c"), "a\nb\nc\nraw\n", "neither `stray` nor `names` is there");
    let id = project.json(&["log"]).0["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry["run"].as_str().map(str::to_owned))
        .unwrap();
    let (shown, _) = project.json(&["show", &id]);
    let steps = shown["steps"].as_array().unwrap();
    let is_plain = |step: &Value| step["rung"] == "notify" && step.get("isolated").is_none_or(|it| it == false);
    assert!(steps.len() == 3 && steps.iter().all(is_plain), "{shown}");
    let text = project.pv_ok(&["show", &id]);
    assert_eq!(text.matches("observed: notify\n").count(), 3, "{text}");
    // What was seen there counts like anywhere.
    let (audit, _) = project.json(&["audit"]);
    assert_eq!(audit["steps"][0]["writes"], serde_json::json!(["raw", "stray"]));
    let again = project.tell(&confined(test, &project, &["run"]).unwrap().output().unwrap());
    assert!(!again.contains("not isolated") && again.matches(": reused").count() == 3, "{again}");
    project.write("raw", "2\n");
    assert_eq!(project.json(&["why", "first"]).0["changes"][0]["name"], "raw");
    assert!(confined(test, &project, &["run"]).unwrap().output().unwrap().status.success());
    assert_eq!(project.read("b"), "2\n2\n");
}

#[test]
fn a_copy_of_the_files_goes_only_to_a_step_that_may_see_all_that_is_in_it() {
    // Steps take over the copies of others; one with outputs of a step that they do not come after does not fit them.
    let project = Sandbox::with_pipeline(
        "steps:\n  \
         first:\n    inputs: []\n    outputs: [a]\n    run: echo 1 > a\n  \
         apart:\n    inputs: []\n    outputs: [b]\n    run: ls > b\n  \
         after:\n    inputs: [a]\n    outputs: [c]\n    run: ls > c; cat a >> c\n  \
         both:\n    inputs: [b, c]\n    outputs: [d]\n    run: ls > d\n",
    );
    project.write(".gitignore", "/a\n/b\n/c\n/d\n");
    project.write("raw", "1\n");
    project.commit("all");
    let Some(mut run) = confined("copies of the files", &project, &["run", "--jobs", "1"]) else { return };
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(project.read("b"), "b\nraw\n", "it does not come after `first`");
    assert_eq!(project.read("c"), "a\nc\nraw\n1\n", "it comes after `first`, and not after `apart`");
    assert_eq!(project.read("d"), "a\nb\nc\nd\nraw\n");
}
