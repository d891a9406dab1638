//! What is told of a verification afterwards: the report, and what `pv log` and `pv show` say.

use crate::sandbox::Sandbox;

/// One step that repeats and one that does not, with a name that is markup.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_pipeline(
        "steps:\n  same: {run: cp in.txt same.txt, inputs: [in.txt], outputs: [same.txt]}\n  \
         stamp: {run: 'date +%Y > \"a<b>.txt\"', inputs: [same.txt], outputs: [a<b>.txt]}\n",
    );
    sandbox.write(".gitignore", "/*.txt\n!/in.txt\n");
    sandbox.write("in.txt", "1\n");
    sandbox.commit("all");
    sandbox
}

#[test]
fn a_report_is_one_page_with_all_that_was_found_and_replaces_an_older_one_whole() {
    let sandbox = sandbox();
    let place = sandbox.beside("report.html");
    std::fs::write(&place, "an older one").unwrap();
    let (answer, code) = sandbox.json(&["verify", "--why", "--report", place.to_str().unwrap()]);
    let page = std::fs::read_to_string(&place).unwrap();
    if answer["engine"]["rung"] != "full" {
        eprintln!("NOT TESTED: a report with a cause: steps cannot be pinned here");
        return;
    }
    assert_eq!(code, 1, "{answer:#}");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    let snapshot = answer["snapshot"].as_str().unwrap();
    for told in [
        "depends on clock</title>",
        snapshot,
        "<title>same: = identical</title>",
        "<title>stamp: ≠ different</title>",
        "<code>a&lt;b&gt;.txt</code>",
        "<code>clock</code> <span class=\"badge bad\">confirmed</span>",
        "leave the date out of the output",
        "<dt>kernel</dt>",
        "<dt>programs</dt><dd>date ",
        &format!("pv verify --why {}</pre>", &snapshot[..12]),
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("a<b>"), "{page}");
    let others = std::fs::read_dir(place.parent().unwrap()).unwrap();
    let others: Vec<_> = others.map(|entry| entry.unwrap().file_name()).filter(|name| name != "report.html").collect();
    assert!(others.iter().all(|name| !name.to_string_lossy().contains("report")), "{others:?}");
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_and_a_directory_is_refused_before_anything_runs() {
    let sandbox = sandbox();
    insta::assert_snapshot!(sandbox.pv(&["verify", "--report", "."]), @"
    --- stderr
    error: `.` is a directory: a report is one file
    hint: `--report ./report.html`
    --- exit 2
    ");
    assert!(!sandbox.exists(".git/pv/records/verification"), "nothing was verified");
    sandbox.write("a-file", "");
    let told = sandbox.pv(&["--quiet", "verify", "same", "--report", "a-file/report.html"]);
    assert!(told.contains("error: cannot") && told.contains("a-file") && told.ends_with("--- exit 2\n"), "{told}");
    assert!(told.starts_with("identical  same"), "the answer is not lost: {told}");
}

#[test]
fn what_came_of_the_newest_verification_is_told_by_log_and_show_and_nothing_where_there_is_none() {
    let sandbox = sandbox();
    sandbox.pv_ok(&["snapshot", "--tag", "v1"]);
    sandbox.pv_ok(&["run"]);
    let before = [sandbox.pv(&["log"]), sandbox.pv(&["show", "v1"])];
    assert!(before.iter().all(|told| !told.contains("verified")), "{before:?}");
    assert!(sandbox.json(&["show", "v1"]).0.get("verification").is_none());

    // Which of two is newer is told by when they were made.
    let earlier = sandbox.pv_command(&["verify", "v1", "same"]).env("PV_NOW", "2026-01-31T09:29:00Z").output().unwrap();
    assert!(earlier.status.success(), "{}", sandbox.tell(&earlier));
    let told = sandbox.pv(&["log"]);
    assert_eq!(told.matches("  verified identical, 2 runs\n").count(), 2, "the snapshot and its run: {told}");
    let (answer, _) = sandbox.json(&["verify", "--why", "v1"]);
    if answer["engine"]["rung"] != "full" {
        eprintln!("NOT TESTED: a verdict with a cause: steps cannot be pinned here");
        return;
    }
    let (log, show) = (sandbox.pv(&["log"]), sandbox.pv(&["show", "v1"]));
    assert_eq!(log.matches("  verified different: clock\n").count(), 2, "{log}");
    let section = show.split_once("\nverified ").unwrap().1;
    let section = section.split_once("varied: ").unwrap().0;
    let same = answer["steps"][0]["runs"].as_u64().unwrap();
    let stamp = answer["steps"][1]["runs"].as_u64().unwrap();
    let expected = format!(
        "different: clock, causes searched for, pinned: full\n         same  identical  {same} runs\n         \
         stamp  different  {stamp} runs\n           depends on clock\n         "
    );
    assert!(section.ends_with(&expected), "{show}");
    let (shown, _) = sandbox.json(&["show", "v1"]);
    assert_eq!(shown["verification"]["steps"][1]["causes"][0]["cause"], "clock", "{shown:#}");
    let (listed, _) = sandbox.json(&["log"]);
    for entry in listed["entries"].as_array().unwrap() {
        assert_eq!(entry["verified"]["causes"], serde_json::json!(["clock"]), "{entry:#}");
        assert_eq!(entry["verified"]["runs"], same + stamp, "{entry:#}");
    }
}
