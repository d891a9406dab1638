//! A registry that does what those of the world do and no small one does: it gives out tokens, breaks off, and has too much to do.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;

use super::make::{Layer, Layout, file};
use super::{project, small_root, told};

/// What is asked for with this is given.
const TOKEN: &str = "Bearer a-token-of-tests";
/// Name and secret of the user, as they are sent.
const BASIC: &str = "Basic YWRhOnMzY3JldA==";

struct Stranger {
    port: u16,
    /// What was asked, one line each: path, range, and whether with a token, a name or neither.
    asked: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Stranger {
    /// Serves the one image of a layout, the bytes of `brittle` in pieces of so many bytes, each on a connection of its own.
    fn serving(layout: PathBuf, image: String, brittle: (String, usize)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, is_over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (told, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut is_busy = true;
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // Whoever hangs up in the middle is no reason to stop.
                let _ = answer(stream.unwrap(), port, &layout, &image, &brittle, &mut is_busy, &told);
            }
        });
        Self { port, asked, is_over, thread: Some(thread) }
    }
}

fn answer(
    mut stream: TcpStream,
    port: u16,
    layout: &std::path::Path,
    image: &str,
    (brittle, piece): &(String, usize),
    is_busy: &mut bool,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let who = headers.get("authorization").map_or("", String::as_str);
    let range = headers.get("range").cloned().unwrap_or_default();
    let known = [(TOKEN, "token"), (BASIC, "name")].into_iter().find(|(value, _)| *value == who);
    asked.lock().unwrap().push(format!("{path} {range} {}", known.map_or("nobody", |(_, name)| name)));
    let mut say = |head: &str, body: &[u8], declared: usize| {
        write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {declared}\r\n\r\n")?;
        stream.write_all(body)
    };
    if path.starts_with("/token?") {
        let body = json!({"token": TOKEN.trim_start_matches("Bearer ")}).to_string();
        return if who == BASIC { say("200 OK", body.as_bytes(), body.len()) } else { say("403 Forbidden", b"", 0) };
    }
    if who != TOKEN {
        let challenge =
            format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"tests\",scope=\"repository:t:pull\"");
        return say(&format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), b"", 0);
    }
    if std::mem::take(is_busy) {
        return say("429 Too Many Requests\r\nRetry-After: 0", b"", 0);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let digest = if path.contains("/manifests/") { image } else { name };
    let bytes = fs::read(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))?;
    if digest == brittle {
        let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or_default();
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        return say(status, &bytes[from..bytes.len().min(from + piece)], bytes.len() - from);
    }
    say("200 OK", &bytes, bytes.len())
}

#[test]
fn a_token_is_fetched_a_busy_registry_is_asked_again_and_a_layer_goes_on_where_it_broke_off() {
    let sandbox = project();
    let noise: Vec<u8> = (0..90_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut root = small_root();
    root.push(file("lib/noise", noise));
    let layers = [Layer::of(&root)];
    let layer = super::make::digest(&layers[0].stored);
    let third = layers[0].stored.len() / 3 + 1;
    let (layout, image) = Layout::with(sandbox.beside("layout"), &layers);
    let stranger = Stranger::serving(layout.0, image.clone(), (layer.clone(), third));
    let name = format!("127.0.0.1:{}/t", stranger.port);
    let auth = json!({"auths": {format!("127.0.0.1:{}", stranger.port): {"auth": BASIC.trim_start_matches("Basic ")}}});
    let place = sandbox.beside("auth.json");
    fs::write(&place, auth.to_string()).unwrap();
    let refused = sandbox.pv(&["env", "add", &format!("{name}:1")]);
    assert!(refused.contains("because: the registry answered 403, Forbidden\nhint: `podman login`"), "{refused}");
    stranger.asked.lock().unwrap().clear();

    let mut command = sandbox.pv_command(&["--json", "env", "add", &format!("{name}:1")]);
    let output = command.env("REGISTRY_AUTH_FILE", &place).output().unwrap();
    assert!(output.status.success(), "{}", sandbox.tell(&output));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["image"], &answer["files"]), (&format!("{name}@{image}").into(), &5.into()));
    let asked = stranger.asked.lock().unwrap().clone();
    let manifest = |who: &str| format!("/v2/t/manifests/1  {who}");
    let token = "/token?service=tests&scope=repository%3At%3Apull  name".to_owned();
    assert_eq!(asked[..4], [manifest("nobody"), token, manifest("token"), manifest("token")]);
    let blob = |range: String| format!("/v2/t/blobs/{layer} {range} token");
    assert_eq!(
        asked[5..],
        [blob(String::new()), blob(format!("bytes={third}-")), blob(format!("bytes={}-", 2 * third))]
    );
    told(&sandbox, &["snapshot"]);
}
