//! Steps that talk, searched for causes: what they hear is given again, so that they repeat though others do not.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::fault::needs;
use crate::sandbox::Sandbox;

/// A server for HTTP that can be told to answer no more. It ends with the test.
pub(crate) struct Api {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Answers request number `n` of all with `answer(n)`; `None` is that it goes, before the answer.
    pub(crate) fn new(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (over, count) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        let is_over = Arc::clone(&over);
        let serve = move |mut stream: TcpStream| -> Option<()> {
            for line in BufReader::new(stream.try_clone().ok()?).lines() {
                if line.ok()?.is_empty() {
                    break;
                }
            }
            let body = answer(count.fetch_add(1, Ordering::AcqRel))?;
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).ok()
        };
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Acquire) || stream.ok().and_then(&serve).is_none() {
                    return;
                }
            }
        });
        Self { address, over, thread: Some(thread) }
    }

    /// One that always answers the same.
    fn constant() -> Self {
        Self::new(|_| Some("7".to_owned()))
    }

    /// One that counts.
    pub(crate) fn counting() -> Self {
        Self::new(|count| Some(count.to_string()))
    }

    /// Returns a command that prints its answer to a request for `path`, and fails if there is none.
    pub(crate) fn ask(&self, path: &str) -> String {
        format!("curl --silent --show-error --fail http://{}/{path}", self.address)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A project of one step that was run once; nothing where it lacks a program, after saying so.
fn project(test: &str, command: &str) -> Option<Sandbox> {
    let has_curl = Command::new("curl").arg("--version").output().map(drop).map_err(|error| error.to_string());
    needs(test, "curl", has_curl)?;
    let project = Sandbox::with_pipeline(&format!(
        "steps:\n  fetch:\n    inputs: []\n    outputs: [out]\n    run: |\n      exec > out\n      {command}\n"
    ));
    project.write(".gitignore", "/out\n");
    project.commit("all");
    project.pv_ok(&["run"]);
    Some(project)
}

/// Returns what `pv verify --why` says of the step, and its exit code; nothing where not everything can be pinned, after saying so.
fn explained(test: &str, project: &Sandbox) -> Option<(Value, i32)> {
    let (mut answer, code) = project.json(&["verify", "--why"]);
    let rung = answer["engine"]["rung"].clone();
    let is_full = if rung == "full" { Ok(()) } else { Err(rung.to_string()) };
    needs(test, "a machine on which everything can be pinned", is_full)?;
    Some((answer["steps"][0].take(), code))
}

/// Returns the names of causes that were confirmed, and of those that were not.
fn causes(step: &Value) -> [Vec<&str>; 2] {
    [true, false].map(|confirmed| {
        let all = step["causes"].as_array().unwrap().iter();
        all.filter(|cause| cause["confirmed"] == confirmed).map(|cause| cause["cause"].as_str().unwrap()).collect()
    })
}

#[test]
fn others_who_answer_otherwise_each_time_are_a_cause_with_its_place() {
    let test = "others_who_answer_otherwise_each_time_are_a_cause_with_its_place";
    let api = Api::counting();
    let Some(project) = project(test, &format!("echo count $({})", api.ask(""))) else { return };
    let Some((step, code)) = explained(test, &project) else { return };
    assert_eq!((causes(&step), code), ([vec!["network"], vec![]], 1), "{step}");
    let cause = &step["causes"][0];
    let place = cause["places"][0].as_str().unwrap();
    assert!(place.starts_with("out: line 1 count 2 -> count "), "{cause}");
    let evidence = cause["evidence"].as_str().unwrap();
    assert!(evidence.starts_with(&format!("{} answered again, ", api.address)), "{evidence}");
    assert_eq!((&step["notes"], step["runs"].as_u64()), (&json!([]), Some(8)), "{step}");
}

#[test]
fn others_who_always_answer_the_same_are_told_and_blamed_for_nothing() {
    let test = "others_who_always_answer_the_same_are_told_and_blamed_for_nothing";
    let api = Api::constant();
    let Some(project) = project(test, &api.ask("")) else { return };
    let Some((step, code)) = explained(test, &project) else { return };
    assert_eq!((causes(&step), code), ([vec![], vec!["network"]], 0), "{step}");
    assert_eq!((&step["level"], step["runs"].as_u64()), (&json!("identical"), Some(7)), "{step}");
    let evidence = format!(
        "it talked to {}; when they were asked again the result was the same here; without the network it failed: it exited with code 7",
        api.address
    );
    assert_eq!(step["causes"][0]["evidence"], evidence, "{step}");
    let definition = project.read(".pipeline/pipeline.yaml") + "    network: true\n";
    project.write(".pipeline/pipeline.yaml", definition);
    let (step, code) = explained(test, &project).unwrap();
    assert_eq!((causes(&step), code, &step["level"]), ([vec![], vec![]], 0, &json!("identical")), "{step}");
}

#[test]
fn a_step_that_talks_is_searched_for_what_else_it_depends_on() {
    let test = "a_step_that_talks_is_searched_for_what_else_it_depends_on";
    let api = Api::counting();
    let set = "python3 -Sc 'print({*(\"pear fig plum lime date kiwi nut\".split())})'";
    let Some(project) = project(test, &format!("{}; {set}", api.ask(""))) else { return };
    let Some((step, _)) = explained(test, &project) else { return };
    assert_eq!(causes(&step), [vec!["network", "hash-seed"], vec![]], "{step}");
}

#[test]
fn a_server_that_is_gone_after_the_first_execution_is_not_missed() {
    let test = "a_server_that_is_gone_after_the_first_execution_is_not_missed";
    // The run has the first answer, the verification executes it again because nobody vouches for that, and then comes the search.
    let api = Api::new(|count| (count < 3).then(|| count.to_string()));
    let Some(project) = project(test, &format!("{} && echo $TZ", api.ask(""))) else { return };
    let Some((step, _)) = explained(test, &project) else { return };
    assert_eq!(causes(&step), [vec!["timezone"], vec!["network"]], "{step}");
    let evidence = step["causes"][1]["evidence"].as_str().unwrap();
    assert!(evidence.contains("asked again it failed: "), "{evidence}");
    assert_eq!(step["notes"], json!([]), "{step}");
}

#[test]
fn nothing_is_said_of_what_makes_a_step_ask_something_else() {
    let test = "nothing_is_said_of_what_makes_a_step_ask_something_else";
    let api = Api::counting();
    let Some(project) = project(test, &api.ask("$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')")) else { return };
    let Some((step, _)) = explained(test, &project) else { return };
    assert_eq!(causes(&step), [vec!["network"], vec![]], "{step}");
    let notes = step["notes"].to_string();
    assert!(notes.contains("it said something else to others than at first"), "{notes}");
    assert!(notes.contains("what it says to others follows from entropy, and they"), "{notes}");
}

#[test]
fn what_came_of_asking_somebody_who_is_gone_is_no_result() {
    let test = "what_came_of_asking_somebody_who_is_gone_is_no_result";
    let api = Api::new(|count| (count < 3).then(|| "7".to_owned()));
    let Some(project) = project(test, &api.ask("$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')")) else { return };
    let Some((step, code)) = explained(test, &project) else { return };
    assert_eq!((causes(&step), code, &step["level"]), ([vec![], vec!["network"]], 0, &json!("identical")), "{step}");
    assert!(step["notes"].to_string().contains("what it says to others follows from entropy, and they"), "{step}");
}

#[test]
fn what_a_step_makes_of_silence_is_a_cause_of_its_own() {
    let test = "what_a_step_makes_of_silence_is_a_cause_of_its_own";
    let api = Api::constant();
    let Some(project) = project(test, &format!("{} || echo none", api.ask(""))) else { return };
    let Some((step, _)) = explained(test, &project) else { return };
    assert_eq!(causes(&step), [vec!["network"], vec![]], "{step}");
    assert_eq!(step["causes"][0]["places"], json!(["out: line 1 7 -> none"]), "{step}");
}

/// A server for HTTPS that counts. It ends with the test.
struct Secret {
    server: Child,
    port: String,
}

impl Secret {
    fn new(directory: &Path) -> Result<Self, String> {
        let told = |error: std::io::Error| error.to_string();
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost".split(' '))
            .args(["-keyout", "key.pem", "-out", "own.pem"])
            .current_dir(directory)
            .output()
            .map_err(told)?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let serve = "
import itertools, socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain('own.pem', 'key.pem')
server = socket.create_server(('127.0.0.1', 0)); print(server.getsockname()[1], flush=True)
for count in itertools.count():
    talk = context.wrap_socket(server.accept()[0], server_side=True)
    talk.recv(9999); talk.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n%d' % count); talk.close()";
        let mut server = Command::new("python3")
            .args(["-c", serve])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(told)?;
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).map_err(told)?;
        Ok(Self { server, port: port.trim().to_owned() })
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn what_is_said_in_secret_is_given_again_as_long_as_keys_are_pinned() {
    let test = "what_is_said_in_secret_is_given_again_as_long_as_keys_are_pinned";
    let directory = tempfile::tempdir().unwrap();
    let Some(secret) = needs(test, "python3 and openssl", Secret::new(directory.path())) else { return };
    let command = format!("curl --silent --insecure https://127.0.0.1:{}", secret.port);
    let Some(project) = project(test, &command) else { return };
    let Some((step, _)) = explained(test, &project) else { return };
    assert_eq!(causes(&step), [vec!["network"], vec![]], "{step}");
    assert_eq!(step["causes"][0]["places"], json!(["out: line 1 2 -> 3"]), "{step}");
    assert!(step["notes"].to_string().contains("what it says to others follows from "), "{step}");
}
