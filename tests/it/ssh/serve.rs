//! `pv serve` as who starts it by hand sees it.

use std::io::Write;
use std::process::Stdio;

use crate::sandbox::Sandbox;

/// Returns what is told of serving to somebody who says `said`, without the greeting.
fn told(sandbox: &Sandbox, said: &[u8]) -> String {
    let mut command = sandbox.pv_command(&["serve", "--stdio", "../remote"]);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.stdin.take().unwrap().write_all(said).unwrap();
    let mut output = server.wait_with_output().unwrap();
    assert!(output.stdout.starts_with(b"pvSERVE\n"));
    output.stdout.clear();
    assert!(!sandbox.beside("remote").exists());
    sandbox.tell(&output)
}

#[test]
fn serving_ends_with_standard_input_and_needs_no_project() {
    let sandbox = Sandbox::new();
    assert_eq!(told(&sandbox, b""), "");
}

#[test]
fn whoever_is_no_pv_is_shown() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(told(&sandbox, b"GET / HTTP/1.1\r\n\r\n"), @r"
    --- stderr
    error: the other side cannot be understood
      because: something else answers, which begins with `GET / HTTP/1.1`
    hint: `pv` itself starts this for a remote `ssh://...`
    --- exit 2
    ");
}

#[test]
fn there_is_one_way_of_serving_and_it_must_be_named() {
    let sandbox = Sandbox::new();
    let told = sandbox.pv(&["serve", "/srv/pv"]);
    assert!(told.contains("--stdio") && told.ends_with("--- exit 2\n"), "{told}");
    let help = sandbox.pv_ok(&["serve", "--help"]);
    assert!(help.contains("restrict,command=\"pv serve --stdio /srv/pv\" ssh-ed25519"), "{help}");
    assert!(!sandbox.pv_ok(&["--help"]).contains("serve"), "it is for machines");
}
