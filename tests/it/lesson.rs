//! The lesson: what its pipeline prints is part of the contract.

use crate::sandbox::Sandbox;

const LINES: &str = "\
Running pipeline version: v1.0
Step: extract - Extract data from source
Step: transform - Clean and transform data
Step: load - Load data into database
";

#[test]
fn a_version_runs_with_the_four_lines_to_the_letter_and_is_reproduced_bit_for_bit() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let first = project.pv_ok(&["run", "v1.0"]);
    assert!(first.starts_with(LINES), "{first}");
    assert_eq!(first.lines().count(), 5, "one more line for the run: {first}");
    let again = project.pv_ok(&["run", "v1.0"]);
    assert!(again.starts_with(LINES), "{again}");
    assert!(again.contains("reproduced, bit for bit, 5 outputs"), "{again}");
}
