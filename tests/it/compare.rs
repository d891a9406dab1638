//! What a definition says of how outputs are compared: it judges results and is no part of them.

use serde_json::json;

use crate::sandbox::Sandbox;

const PLAIN: &str = "\
steps:
  make:
    run: echo 0.5 > out.txt; echo '[0.25]' > m.json
    inputs: []
    outputs: [out.txt]
    metrics: [m.json]
";

fn verdicts(sandbox: &Sandbox) -> serde_json::Value {
    let (answer, code) = sandbox.json(&["run"]);
    assert_eq!(code, 0, "{answer}");
    answer["steps"].as_array().unwrap().iter().map(|step| step["verdict"].clone()).collect()
}

#[test]
fn what_an_output_may_differ_by_is_no_reason_to_run_again_and_is_told_as_a_change() {
    let sandbox = Sandbox::with_pipeline(PLAIN);
    assert_eq!(verdicts(&sandbox), json!(["ran"]));
    let tolerant = PLAIN
        .replace("[out.txt]", "[{path: out.txt, compare: {level: close, rtol: 1e-9}}]")
        .replace("[m.json]", "{path: m.json, compare: canonical}");
    sandbox.write(".pipeline/pipeline.yaml", &tolerant);
    assert_eq!(verdicts(&sandbox), json!(["reused"]));
    assert_eq!(std::fs::read_to_string(sandbox.path("out.txt")).unwrap(), "0.5\n");
    sandbox.commit("second");
    let (diff, _) = sandbox.json(&["diff", "HEAD~1", "HEAD"]);
    let compare = json!({"m.json": {"level": "canonical"}, "out.txt": {"level": "close", "rtol": 1e-9}});
    assert_eq!(diff["steps"][0]["fields"], json!([{"field": "compare", "old": null, "new": compare}]));
}
