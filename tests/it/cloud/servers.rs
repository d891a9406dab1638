//! Real servers on the loopback. Each ends with the test that started it, also where that is killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::fault::needs;

/// The key that the S3 server knows.
pub(super) const KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
/// The account that the server for Azure's interface has by itself, and its well-known key.
pub(super) const ACCOUNT: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");
/// A server has to be there after so many looks, a tenth of a second apart.
const LOOKS: u32 = 600;

/// Ends a program as soon as nobody holds the other end of the standard input.
const LEASHED: &str = r#""$@" </dev/null & child=$!; cat >/dev/null; kill "$child"; wait "$child""#;

/// A server that is there.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    /// What it keeps, where that is in files.
    pub(crate) directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Returns an S3 server with these buckets that checks signatures.
pub(super) fn s3(test: &str, buckets: &[&str]) -> Option<Server> {
    let python = needs(test, "a server for S3 (moto, of tests/servers)", program("python-of-servers"))?;
    let mut command = Command::new(python);
    command.arg(script()).args(buckets);
    Some(saying_its_port(command, tempfile::tempdir().unwrap(), |line| line.parse().ok()))
}

/// Returns the program that serves S3, and checks its own verifier.
pub(super) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cloud/strict_s3.py")
}

/// Returns a server that speaks Azure's language, with an empty container `data`.
pub(super) fn azure(test: &str) -> Option<Server> {
    needs(test, "a server for Azure's interface (azurite, of tests/servers)", program("azurite-blob"))?;
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", LEASHED, "sh", "azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", "0"]);
    command.args(["--skipApiVersionCheck", "--disableTelemetry", "--location"]).arg(directory.path());
    let port = |line: &str| line.split_once("successfully listens on http://127.0.0.1:")?.1.trim().parse().ok();
    Some(saying_its_port(command, directory, port))
}

/// What a web server is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Web {
    Plain,
    /// It gives all of a file, whatever part is asked for.
    WithoutRanges,
    /// It encrypts, with the certificate in its directory that nobody has signed.
    Encrypted,
}

/// Returns a web server that serves the files below its directory.
pub(super) fn web(test: &str, web: Web) -> Option<Server> {
    let nginx = needs(test, "a web server (the package nginx-light)", program("nginx"))?;
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("files")).unwrap();
    // As root, what it serves is read by another user.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let place = directory.path().display();
    let (listen, more) = match web {
        Web::Plain => ("", String::new()),
        Web::WithoutRanges => ("", "max_ranges 0;".to_owned()),
        Web::Encrypted => {
            needs(test, "the program openssl", make_certificate(directory.path()))?;
            ("ssl", format!("ssl_certificate {place}/certificate; ssl_certificate_key {place}/key;"))
        }
    };
    // A port that is free may be taken before the server is there; then another is tried.
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/temporary;"))
            .join(" ");
        let settings = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/log;
             events {{}}
             http {{ access_log off; {temporary}
                server {{ listen 127.0.0.1:{port} {listen}; root {place}/files; {more} }} }}"
        );
        fs::write(directory.path().join("settings"), settings).unwrap();
        fs::write(directory.path().join("log"), "").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", LEASHED, "sh"]).arg(&nginx).arg("-e").arg(directory.path().join("log"));
        command.arg("-c").arg(directory.path().join("settings"));
        let mut process = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..LOOKS {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Server { process, port, directory });
            }
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            if log.contains("[emerg]") {
                assert!(log.contains("Address already in use"), "{log}");
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        drop(process.stdin.take());
        let _ = process.wait();
    }
    panic!("no port stays free");
}

/// Whom a registry of images lets in, and how.
#[derive(Clone, Copy)]
pub(crate) enum Access<'a> {
    Everybody,
    /// Those of whom it keeps the secrets.
    Known(&'a str),
    /// Everybody, encrypted, with the certificate in its directory that nobody has signed.
    Encrypted,
}

/// Returns a registry of images.
pub(crate) fn registry(test: &str, access: Access<'_>) -> Option<Server> {
    let program = needs(test, "a registry of images (the package docker-registry)", program("docker-registry"))?;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display();
    let (mut tls, mut auth) = (String::new(), String::new());
    match access {
        Access::Everybody => {}
        Access::Known(secrets) => {
            fs::write(directory.path().join("secrets"), secrets).unwrap();
            auth = format!("auth: {{htpasswd: {{realm: tests, path: {place}/secrets}}}}\n");
        }
        Access::Encrypted => {
            needs(test, "the program openssl", make_certificate(directory.path()))?;
            tls = format!(", tls: {{certificate: {place}/certificate, key: {place}/key}}");
        }
    }
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {place}/images}}}}\n\
         http: {{addr: '127.0.0.1:0'{tls}}}\n{auth}"
    );
    fs::write(directory.path().join("settings"), settings).unwrap();
    let mut command = Command::new("sh");
    // It says where it listens among its complaints.
    command.args(["-c", LEASHED, "sh", "sh", "-c", "exec \"$@\" 2>&1", "sh"]).arg(program).arg("serve");
    command.arg(directory.path().join("settings"));
    let port = |line: &str| line.split_once("listening on 127.0.0.1:")?.1.split(['"', ' ', ',']).next()?.parse().ok();
    Some(saying_its_port(command, directory, port))
}

/// Starts a server and waits until it says at which port it is.
fn saying_its_port(mut command: Command, directory: TempDir, port: impl Fn(&str) -> Option<u16>) -> Server {
    let complaints = directory.path().join("complaints");
    command.stderr(fs::File::create(&complaints).unwrap());
    let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut server = Server { process, port: 0, directory };
    let mut said = BufReader::new(server.process.stdout.take().unwrap());
    let mut lines = String::new();
    loop {
        let before = lines.len();
        let goes_on = said.read_line(&mut lines).unwrap() > 0;
        assert!(goes_on, "the server ended: {lines}{}", fs::read_to_string(&complaints).unwrap());
        if let Some(port) = port(lines[before..].trim()) {
            // What it says later is not waited for, but must go somewhere.
            thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            server.port = port;
            return server;
        }
    }
}

/// What a server is called that no name leads to; a proxy may know it.
pub(crate) const NAMED: &str = "registry.test";

/// Makes a certificate for the loopback, and for a server of that name, that says itself that it is right.
fn make_certificate(directory: &Path) -> Result<(), String> {
    let names = format!("subjectAltName=IP:127.0.0.1,DNS:{NAMED}");
    let subject = ["-subj", "/CN=loopback", "-addext", &names];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(subject)
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key", "-out", "certificate"])
        .current_dir(directory)
        .output()
        .map_err(|error| error.to_string())?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

pub(crate) fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("`{name}` is in no directory of the `PATH`"))
}
