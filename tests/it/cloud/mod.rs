//! Remotes in object stores and on the web, against real servers.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use pv::remote::{Address, Body, Bucket, BucketError, Cloud, Patience, Surroundings, Trouble};

#[path = "../../../src/remote/contract.rs"]
mod contract;
mod faults;
mod machine;
mod proxy;
pub(crate) mod servers;

use self::contract::{noise, spans_are_exact};
use self::machine::Machine;
use self::servers::{ACCOUNT, KEY, Web};
use crate::sandbox::Sandbox;

/// Returns what is at an address, for a user who has these variables and no files.
fn open_with(address: &str, variables: &[(&str, &str)], patience: Patience) -> Result<Cloud, BucketError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let address = Address::read(address, Path::new("/"), None).unwrap();
    Cloud::open(&address, &Surroundings { variable: &variable, home: None, patience })
}

/// Returns what is at an address of an S3 server, for a user whom it knows.
fn s3_at(url: &str, address: &str, patience: Patience) -> Cloud {
    let variables = [("AWS_ACCESS_KEY_ID", KEY.0), ("AWS_SECRET_ACCESS_KEY", KEY.1), ("AWS_ENDPOINT_URL", url)];
    open_with(address, &variables, patience).unwrap()
}

fn in_words(error: &BucketError) -> String {
    format!("{error}: {}", error.source().unwrap())
}

#[test]
fn a_bucket_of_s3_holds_what_every_bucket_promises() {
    let Some(server) = servers::s3("a_bucket_of_s3_holds_what_every_bucket_promises", &["data"]) else { return };
    contract::holds(&s3_at(&server.url(), "s3://data/some/where", Patience::default()));
    // What was there is not in the way of another remote in the same bucket, nor of one at its top.
    contract::holds(&s3_at(&server.url(), "s3://data/some", Patience::default()));
}

#[test]
fn the_top_of_a_bucket_of_s3_holds_it_too() {
    let Some(server) = servers::s3("the_top_of_a_bucket_of_s3_holds_it_too", &["data"]) else { return };
    contract::holds(&s3_at(&server.url(), "s3://data", Patience::default()));
}

#[test]
fn a_container_of_azure_holds_what_every_bucket_promises() {
    let Some(server) = servers::azure("a_container_of_azure_holds_what_every_bucket_promises") else { return };
    let url = server.url();
    let made = Command::new("python3")
        .arg(servers::script().with_file_name("make_container.py"))
        .args([&url, ACCOUNT.0, ACCOUNT.1, "data"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let endpoint = format!("{url}/{}", ACCOUNT.0);
    let mut variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.0),
        ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT.1),
        ("AZURE_STORAGE_ENDPOINT", &endpoint),
    ];
    contract::holds(&open_with("az://data/some/where", &variables, Patience::default()).unwrap());
    let elsewhere = open_with("az://other", &variables, Patience::default()).unwrap();
    let error = elsewhere.read("FORMAT", 10).unwrap_err();
    assert_eq!(in_words(&error), "cannot read `FORMAT`: the server answered 404, Not Found, ContainerNotFound");
    // This server checks what is signed.
    variables[1].1 = "bm90IHRoZSBrZXk=";
    let stranger = open_with("az://data/some/where", &variables, Patience::default()).unwrap();
    assert_eq!(stranger.list("whole").unwrap_err().trouble, Trouble::Refused);
}

#[test]
fn a_web_server_is_read() {
    let Some(server) = servers::web("a_web_server_is_read", Web::Plain) else { return };
    reads_large(&server, 9 << 20);
}

/// A server that knows no ranges gives all of a file: only what was asked for stays in memory.
#[test]
fn a_web_server_that_knows_no_ranges_is_read_as_well() {
    let Some(server) = servers::web("a_web_server_that_knows_no_ranges_is_read_as_well", Web::WithoutRanges) else {
        return;
    };
    reads_large(&server, 9 << 20);
    let before = peak_memory_bytes();
    let file = fs::File::create(server.directory.path().join("files/some/huge")).unwrap();
    file.set_len(400 << 20).unwrap();
    let web = open_with(&server.url(), &[], Patience::default()).unwrap();
    assert_eq!(web.read_span("some/huge", 399 << 20..(399 << 20) + 10).unwrap(), [0; 10]);
    assert_eq!(web.read_span("some/huge", 0..10).unwrap(), [0; 10]);
    let grown = peak_memory_bytes() - before;
    assert!(grown < 100 << 20, "it took {grown} bytes");
}

/// Panics if a bucket that cannot be written breaks a promise. It holds `large` in `some/large`, and nothing else.
fn holds_for_reading(bucket: &dyn Bucket, large: &[u8]) {
    let most = large.len() as u64;
    assert_eq!(bucket.read("some/large", most).unwrap().as_deref(), Some(large));
    spans_are_exact(bucket, "some/large", large);
    assert_eq!(bucket.read("some/other", 100).unwrap(), None);
    assert_eq!(bucket.read_span("some/other", 0..1).unwrap_err().trouble, Trouble::Missing);
    assert_eq!(bucket.read("some/large", most - 1).unwrap_err().trouble, Trouble::Garbled);
    assert_eq!(bucket.read_span("some/large", most - 1..most + 1).unwrap_err().trouble, Trouble::Garbled);
    let unsupported = [
        bucket.list("some").map(drop),
        bucket.write("some/new", &b"x".as_slice()),
        bucket.create("some/new", b"x").map(drop),
        bucket.remove("some/large"),
    ];
    for answer in unsupported {
        assert_eq!(answer.unwrap_err().trouble, Trouble::Unsupported);
    }
}

fn reads_large(server: &servers::Server, length: usize) {
    let large = noise(length, 3);
    fs::create_dir(server.directory.path().join("files/some")).unwrap();
    fs::write(server.directory.path().join("files/some/large"), &large).unwrap();
    holds_for_reading(&open_with(&server.url(), &[], Patience::default()).unwrap(), &large);
}

/// Returns the most memory that this process ever had.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Set for the process in which the certificate of the server is one of those that the system trusts.
const TRUSTED_URL: &str = "PV_TEST_TRUSTED_URL";

/// What the system trusts is decided once in a process, so this test is also the process that it starts.
#[test]
fn an_encrypted_server_is_read_if_the_system_trusts_it() {
    let test = "an_encrypted_server_is_read_if_the_system_trusts_it";
    if let Ok(url) = std::env::var(TRUSTED_URL) {
        let web = open_with(&url, &[], Patience::default()).unwrap();
        assert_eq!(web.read("file", 10).unwrap().unwrap(), b"bytes");
        return;
    }
    let Some(server) = servers::web(test, Web::Encrypted) else { return };
    fs::write(server.directory.path().join("files/file"), "bytes").unwrap();
    let url = format!("https://127.0.0.1:{}", server.port);
    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("cloud::{test}")])
        .env(TRUSTED_URL, &url)
        .env("SSL_CERT_FILE", server.directory.path().join("certificate"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trusting.stdout);
    assert!(trusting.status.success() && said.contains("1 passed"), "{said}");
    let patience = Patience { tries: 1, ..Patience::default() };
    let error = open_with(&url, &[], patience).unwrap().read("file", 10).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable);
    assert!(in_words(&error).contains("certificate"), "{}", in_words(&error));
    // Nor is anything asked without encryption where that is not wanted.
    let keys = [("AWS_ACCESS_KEY_ID", KEY.0), ("AWS_SECRET_ACCESS_KEY", KEY.1), ("AWS_ENDPOINT_URL", &url)];
    assert_eq!(open_with("s3://data", &keys, patience).unwrap().list("").unwrap_err().trouble, Trouble::Unreachable);
}

#[test]
fn what_one_machine_pushes_another_pulls() {
    let Some(server) = servers::s3("what_one_machine_pushes_another_pulls", &["data"]) else { return };
    let bucket = s3_at(&server.url(), "s3://data/team/project", Patience::default());
    let (here, there) = (Machine::with_objects(1, 20 << 20), Machine::new());
    let sent = here.push(&bucket).unwrap();
    assert!(sent.packs > 0 && sent.objects == here.objects.len() as u64, "{sent:?}");
    let fetched = there.pull(&bucket, &here.objects).unwrap();
    assert_eq!((fetched.received, fetched.missing.len()), (here.objects.len() as u64, 0));
    there.assert_has_all_of(&here);
    let again = here.push(&bucket).unwrap();
    assert_eq!((again.packs, again.records), (0, 0), "nothing goes twice");
    // Both ways: what the other machine adds comes back.
    let more = Machine::with_objects(2, 100_000);
    more.push(&bucket).unwrap();
    there.pull(&bucket, &more.objects).unwrap();
    there.assert_has_all_of(&more);
}

/// A web server can serve what was pushed to a directory, since there is a list of what is there.
#[test]
fn what_is_pushed_to_a_directory_is_pulled_over_the_web() {
    let Some(server) = servers::web("what_is_pushed_to_a_directory_is_pulled_over_the_web", Web::Plain) else { return };
    let directory = pv::remote::Directory::new(server.directory.path().join("files/pv"));
    let (here, there) = (Machine::with_objects(1, 9 << 20), Machine::new());
    here.push(&directory).unwrap();
    let web = open_with(&format!("{}/pv", server.url()), &[], Patience::default()).unwrap();
    assert_eq!(there.pull(&web, &here.objects).unwrap().missing.len(), 0);
    there.assert_has_all_of(&here);
}

/// The server of these tests lets in nobody who does not sign right, by a verifier that was written without looking at
/// what it judges. It in turn is held against the example that Amazon publishes.
#[test]
fn the_verifier_of_signatures_agrees_with_the_published_example() {
    let checked = Command::new("python3").arg(servers::script()).arg("--published").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn who_signs_with_another_key_is_refused_and_no_key_is_in_what_is_said() {
    let test = "who_signs_with_another_key_is_refused_and_no_key_is_in_what_is_said";
    let Some(server) = servers::s3(test, &["data"]) else { return };
    let url = server.url();
    let stranger = |id, secret| {
        let keys = [
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", "HUSHTOKEN"),
            ("AWS_ENDPOINT_URL", &url),
        ];
        open_with("s3://data/x", &keys, Patience::default()).unwrap()
    };
    let forged = stranger(KEY.0, "HUSHSECRET");
    let large = noise(9 << 20, 1);
    let errors = [
        forged.read("FORMAT", 10).unwrap_err(),
        forged.read_span("FORMAT", 0..3).unwrap_err(),
        forged.list("index").unwrap_err(),
        forged.write("x", &b"x".as_slice()).unwrap_err(),
        forged.write("x", &large.as_slice()).unwrap_err(),
        forged.create("x", b"x").unwrap_err(),
        forged.remove("x").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.trouble, Trouble::Refused);
        assert_eq!(error.source.to_string(), "the server answered 403, Forbidden, SignatureDoesNotMatch");
        says_nothing_secret(&error);
    }
    let error = stranger("AKIDNOBODY", "HUSHSECRET").list("index").unwrap_err();
    assert_eq!(in_words(&error), "cannot list `index`: the server answered 403, Forbidden, InvalidAccessKeyId");
    says_nothing_secret(&error);
}

/// Panics if a key, a signature or a query is in anything that an error can be asked for.
fn says_nothing_secret(error: &BucketError) {
    let mut said = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said} {error} {error:?}");
        cause = error.source();
    }
    for secret in
        ["HUSH", KEY.0, KEY.1, "AKIDNOBODY", "ignature=", "Signature:", "Credential", "list-type", "?", "http:"]
    {
        assert!(!said.contains(secret), "`{secret}` is in: {said}");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_not_an_empty_one() {
    let Some(server) = servers::s3("a_bucket_that_is_not_there_is_not_an_empty_one", &["data"]) else { return };
    let typo = s3_at(&server.url(), "s3://date/x", Patience::default());
    let errors = [
        typo.read("FORMAT", 10).unwrap_err(),
        typo.list("index").unwrap_err(),
        typo.create("FORMAT", b"x").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.trouble, Trouble::Missing);
        assert_eq!(error.source.to_string(), "the server answered 404, Not Found, NoSuchBucket");
    }
}

/// Where nobody listens, that is said at once, or after as many tries as there is patience for.
#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let patience = Patience { tries: 2, ..Patience::default() };
    for bucket in [
        s3_at(&nobody, "s3://data/x", patience),
        open_with(&nobody, &[], patience).unwrap(),
        open_with("gs://data/x", &[("STORAGE_EMULATOR_HOST", &nobody)], patience).unwrap(),
    ] {
        let error = bucket.read("FORMAT", 10).unwrap_err();
        assert_eq!(error.trouble, Trouble::Unreachable);
        assert_eq!(in_words(&error), "cannot read `FORMAT`: the connection failed: Connection refused (os error 111)");
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_asked_of_nobody() {
    let bucket = s3_at("http://127.0.0.1:1", "s3://data/x", Patience::default());
    for name in ["../up", "a//b", "a/./b"] {
        assert_eq!(bucket.read(name, 10).unwrap_err().trouble, Trouble::Other, "{name}");
        assert_eq!(bucket.write(name, &b"x".as_slice()).unwrap_err().trouble, Trouble::Other, "{name}");
    }
}

/// What Google's service answers is not known here; but who has no credentials is told so, soon.
#[test]
fn where_nobody_knows_the_user_that_is_said() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", "steps: {a: {run: echo a > a, outputs: [a]}}\n");
    project.pv_ok(&["remote", "add", "cloud", "s3://data/x"]);
    // Without any network there is no machine's identity either, wherever this runs.
    let mut alone = project.command_in(&project.path("."), "unshare");
    alone.args(["--user", "--map-root-user", "--net", env!("CARGO_BIN_EXE_pv"), "remote", "check"]);
    let told = project.tell(&alone.output().unwrap());
    let said = "no credentials were found in the environment or in files, and this machine was given none";
    assert!(told.contains(said) && told.contains("--- exit 4"), "{told}");
    assert!(told.contains("look at your credentials"), "{told}");
}

/// Has other bytes than it says.
struct Lying(Vec<u8>, u64);
impl Body for Lying {
    fn bytes(&self) -> u64 {
        self.1
    }
    fn reader(&self) -> Box<dyn std::io::Read + Send + '_> {
        Box::new(self.0.as_slice())
    }
}

/// A body that says less, or more, than it has would be another file.
#[test]
fn a_body_that_is_not_as_long_as_it_says_is_not_written() {
    let Some(server) = servers::s3("a_body_that_is_not_as_long_as_it_says_is_not_written", &["data"]) else { return };
    let bucket = s3_at(&server.url(), "s3://data/x", Patience::default());
    for (has, says) in [(10, 9), (10, 11), (9 << 20, (9 << 20) - 1), (9 << 20, (9 << 20) + 1)] {
        let body = Lying(noise(has, 1), says);
        bucket.write("lie", &body).unwrap_err();
        assert_eq!(bucket.read("lie", 10).unwrap(), None);
    }
}
