//! Conversations that are kept and given again, with real programs and a real server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::isolated_tests::{Bench, Ran, is_reported, is_there};
use super::*;

/// A server that numbers what it answers. It ends when it is dropped.
struct Counter {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Counter {
    /// Answers each connection in a thread of its own with `serve`, which gets a number that is another each time that it is asked for.
    fn new(serve: impl Fn(TcpStream, &dyn Fn() -> usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, serve) = (Arc::clone(&over), Arc::new(serve));
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                let (serve, count) = (Arc::clone(&serve), Arc::clone(&count));
                std::thread::spawn(move || serve(stream.unwrap(), &|| count.fetch_add(1, Ordering::AcqRel)));
            }
        });
        Self { address, over, thread: Some(thread) }
    }

    /// One that speaks HTTP, as many requests on one connection as are made.
    fn http() -> Self {
        Self::new(|stream, next| {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = format!("{path} {}", next());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                if (&stream).write_all((head + &body).as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn run(network: Network, text: &str) -> Ran {
    let mut bench = Bench::new();
    bench.pins = Some(Pins { network, ..Pins::default() });
    bench.run(text)
}

/// Runs a text while what it hears is kept; returns what it printed and what was kept.
fn kept(text: &str) -> (String, Record) {
    let recorder = Recorder::new();
    let ran = run(Network::Kept(recorder.clone()), text);
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert!(ran.outcome.observation.anew.is_empty(), "{:?}", ran.outcome.observation.anew);
    (ran.printed, recorder.record().unwrap())
}

/// Runs a text that is given what is on record; returns what it printed and whom it asked anew.
fn given(record: &Record, text: &str) -> (String, Vec<String>) {
    let ran = run(Network::Given(record.clone()), text);
    (ran.printed, ran.outcome.observation.anew.into_iter().collect())
}

fn can_pin() -> bool {
    is_reported("what others answer")
}

fn has(program: &str) -> bool {
    is_there(program, "what others answer")
}

/// Checks that a program is given again what it heard before, also when nobody is there any more, and hears another thing without that.
fn repeats(program: &str, text: impl Fn(u16) -> String) {
    if !can_pin() || !has(program) {
        return;
    }
    let server = Counter::http();
    let text = text(server.port());
    let (first, record) = kept(&text);
    assert!(first.contains("/a 0"), "{first}");
    assert_eq!(given(&record, &text), (first.clone(), vec![]));
    let now = Bench::new().run(&text).printed;
    assert!(now != first && now.contains("/a "), "nobody asked meanwhile: {now}");
    drop(server);
    assert_eq!(given(&record, &text), (first.clone(), vec![]), "nobody is there any more");
    assert_eq!(given(&record, &text), (first, vec![]), "a record is not used up");
}

#[test]
fn programs_hear_again_what_they_heard_though_the_server_is_gone() {
    repeats("curl", |port| format!("curl --silent --show-error http://127.0.0.1:{port}/a http://127.0.0.1:{port}/b"));
}

#[test]
fn also_those_that_wait_for_many_at_once() {
    repeats("node", |port| {
        format!(
            "node -e 'const ask = path => fetch(\"http://127.0.0.1:{port}\" + path).then(a => a.text());
(async () => {{ console.log(await ask(\"/a\")); console.log(await ask(\"/b\")); process.exit(0) }})()'"
        )
    });
}

#[test]
fn also_those_that_have_a_time_limit_and_keep_a_connection() {
    repeats("python3", |port| {
        format!(
            "python3 -c 'import http.client, urllib.request
talk = http.client.HTTPConnection(\"127.0.0.1\", {port}, timeout=5)
for path in \"/a\", \"/b\", \"/a\":
    talk.request(\"GET\", path); print(talk.getresponse().read())
print(urllib.request.urlopen(\"http://127.0.0.1:{port}/c\").read())'"
        )
    });
}

#[test]
fn connections_at_once_are_told_apart_by_what_is_said_first() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::http();
    let port = server.port();
    // In another order, and all of them open before anything is said.
    let text = |order: &str| {
        format!(
            "python3 -c 'import socket
talks = {{path: socket.create_connection((\"127.0.0.1\", {port})) for path in \"abc\"}}
for path in \"{order}\":
    talks[path].sendall(b\"GET /%s HTTP/1.1\\r\\n\\r\\n\" % path.encode())
    print(talks[path].recv(999).split()[-2:])' | sort"
        )
    };
    let (first, record) = kept(&text("abc"));
    drop(server);
    assert_eq!(given(&record, &text("cab")), (first, vec![]));
}

#[test]
fn who_says_something_else_is_answered_for_real_and_that_is_told() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::http();
    let text = |paths: &str| {
        format!(
            "python3 -c 'import http.client
talk = http.client.HTTPConnection(\"127.0.0.1\", {}, timeout=5)
for path in \"{paths}\":
    talk.request(\"GET\", \"/\" + path); print(talk.getresponse().read().decode())'",
            server.port()
        )
    };
    let (first, record) = kept(&text("ab"));
    assert_eq!(first, "/a 0\n/b 1\n");
    let real = vec![server.address.to_string()];
    assert_eq!(given(&record, &text("c")), ("/c 2\n".to_owned(), real.clone()), "from the beginning");
    assert_eq!(given(&record, &text("ac")), ("/a 0\n/c 3\n".to_owned(), real.clone()), "later");
    assert_eq!(given(&record, &text("abc")), ("/a 0\n/b 1\n/c 4\n".to_owned(), real), "more");
    assert_eq!(given(&record, &text("a")), ("/a 0\n".to_owned(), vec![]), "less");
    let elsewhere = Counter::http();
    let text = format!("curl --silent http://{}/x", elsewhere.address);
    if has("curl") {
        assert_eq!(given(&record, &text), ("/x 0\n".to_owned(), vec![elsewhere.address.to_string()]), "to others");
    }
}

#[test]
fn who_was_refused_is_refused_again() {
    if !can_pin() || !has("python3") {
        return;
    }
    let text = |port: u16| {
        format!(
            "python3 -c 'import socket
for limit in None, 5:
    try: socket.create_connection((\"127.0.0.1\", {port}), limit); print(\"through\")
    except OSError as error: print(error.strerror)'"
        )
    };
    // Bound and not listening: nobody else gets it meanwhile.
    let nobody = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&nobody, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = std::net::TcpStream::from(nobody.try_clone().unwrap()).local_addr().unwrap().port();
    let (first, record) = kept(&text(port));
    assert_eq!(first, "Connection refused\nConnection refused\n");
    rustix::net::listen(&nobody, 9).unwrap();
    assert_eq!(given(&record, &text(port)), (first, vec![]), "though somebody is there now");
    assert_eq!(Bench::new().run(&text(port)).printed, "through\nthrough\n");
}

#[test]
fn who_speaks_first_who_breaks_off_and_who_only_listens_are_the_same_again() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::new(|mut stream, next| {
        let number = next();
        stream.write_all(format!("hello {number}\n").as_bytes()).unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        lines.read_line(&mut said).unwrap();
        match said.trim() {
            "break" => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
            "all" => {
                let mut rest = String::new();
                lines.read_to_string(&mut rest).unwrap();
                stream.write_all(format!("{} bytes\n", rest.len()).as_bytes()).unwrap();
            }
            _ => {}
        }
    });
    let text = format!(
        "python3 -c 'import socket
def talk(*parts):
    talk = socket.create_connection((\"127.0.0.1\", {}))
    print(talk.recv(99))
    for part in parts: talk.sendall(part)
    if parts[0] == b\"all\\n\": talk.shutdown(socket.SHUT_WR)
    try: print(talk.makefile().read())
    except OSError as error: print(error.strerror)
talk(b\"all\\n\", b\"x\" * 7, b\"y\" * 9)
talk(b\"break\\n\")
talk(b\"end\\n\")'",
        server.port()
    );
    let (first, record) = kept(&text);
    assert_eq!(first, "b'hello 0\\n'\n16 bytes\n\nb'hello 1\\n'\nConnection reset by peer\nb'hello 2\\n'\n\n");
    drop(server);
    assert_eq!(given(&record, &text), (first, vec![]));
}

#[test]
fn many_bytes_in_both_directions_are_the_same_again() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::new(|mut stream, next| {
        let number = u8::try_from(next()).unwrap();
        let mut said = vec![0; 9_000_000];
        stream.read_exact(&mut said).unwrap();
        said.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= u8::try_from(at % 251).unwrap() ^ number);
        stream.write_all(&said).unwrap();
    });
    let text = format!(
        "python3 -c 'import hashlib, socket
talk = socket.create_connection((\"127.0.0.1\", {}))
talk.sendall(b\"abcdefghi\" * 1000000)
heard = talk.makefile(\"rb\").read()
print(len(heard), hashlib.sha256(heard).hexdigest())'",
        server.port()
    );
    let (first, record) = kept(&text);
    assert!(first.starts_with("9000000 "), "{first}");
    drop(server);
    assert_eq!(given(&record, &text), (first, vec![]));
}

#[test]
fn what_a_job_says_last_reaches_whom_it_is_meant_for() {
    if !can_pin() || !has("python3") {
        return;
    }
    let heard = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let hears = Arc::clone(&heard);
    let server = Counter::new(move |mut stream, _| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        *hears.0.lock().unwrap() = all;
        hears.1.notify_all();
    });
    let text = format!(
        "python3 -c 'import os, socket
talk = socket.create_connection((\"127.0.0.1\", {}))
talk.sendall(b\"farewell\" * 9); os._exit(0)'",
        server.port()
    );
    kept(&text);
    let all = heard.1.wait_while(heard.0.lock().unwrap(), |heard| heard.is_empty()).unwrap();
    assert_eq!(all.len(), 72);
}

#[test]
fn addresses_of_the_longer_kind_lead_the_same_way() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::http();
    // By a socket for longer addresses.
    let text = format!(
        "python3 -c 'import socket
talk = socket.socket(socket.AF_INET6); talk.connect((\"::ffff:127.0.0.1\", {}))
talk.sendall(b\"GET /a HTTP/1.1\\r\\n\\r\\n\"); print(talk.recv(999).split()[-2:])'",
        server.port()
    );
    let (first, record) = kept(&text);
    drop(server);
    assert_eq!(given(&record, &text), (first, vec![]));
}

#[test]
fn sockets_have_the_addresses_that_they_would_have() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = Counter::http();
    let text = format!(
        "python3 -c 'import socket
for kind in socket.AF_INET, socket.AF_INET6:
    name = (\"127.0.0.1\" if kind == socket.AF_INET else \"::ffff:127.0.0.1\", {})
    talk = socket.socket(kind); talk.connect(name)
    print(talk.getpeername(), talk.getsockname()[0], talk.getsockname()[1] > 0)'",
        server.port()
    );
    let plain = Bench::new().run(&text).printed;
    assert!(plain.contains(&format!("('127.0.0.1', {})", server.port())), "{plain}");
    let (first, record) = kept(&text);
    assert_eq!(first, plain);
    drop(server);
    assert_eq!(given(&record, &text), (first, vec![]));
}

#[test]
fn datagrams_are_heard_again_and_come_from_whom_they_came_from() {
    if !can_pin() || !has("python3") {
        return;
    }
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let mut bytes = [0; 99];
        for count in 0.. {
            let (length, from) = server.recv_from(&mut bytes).unwrap();
            if &bytes[..length] == b"end" {
                return;
            }
            let answer = [format!("{count} ").as_bytes(), &bytes[..length]].concat();
            server.send_to(&answer, from).unwrap();
        }
    });
    // Waiting in the call, after being told that there is something, and not at all.
    let text = |asked: &str| {
        format!(
            "python3 -c 'import select, socket
talk = socket.socket(type=socket.SOCK_DGRAM); talk.connect((\"127.0.0.1\", {}))
print(talk.getpeername(), talk.getsockname()[0])
talk.send(b\"{asked}\"); print(talk.recvfrom(99))
talk.send(b\"b\"); select.select([talk], [], []); print(talk.recvfrom(99))
talk.settimeout(5); talk.send(b\"c\"); print(talk.recvfrom(99))'",
            address.port()
        )
    };
    let (first, record) = kept(&text("a"));
    let name = format!("('127.0.0.1', {})", address.port());
    assert_eq!(first, format!("{name} 127.0.0.1\n(b'0 a', {name})\n(b'1 b', {name})\n(b'2 c', {name})\n"));
    assert_eq!(given(&record, &text("a")), (first, vec![]));
    let (other, anew) = given(&record, &text("z"));
    assert!(other.contains("(b'3 z'") && other.contains("(b'5 c'"), "{other}");
    assert_eq!(anew, [address.to_string()]);
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", address).unwrap();
    serving.join().unwrap();
}

#[test]
fn what_does_not_lead_through_here_is_told() {
    if !can_pin() || !has("python3") {
        return;
    }
    let text = "python3 -c 'import socket
talk = socket.socket(type=socket.SOCK_DGRAM)
try: talk.sendto(b\"x\", (\"198.51.100.2\", 9))
except OSError: pass'";
    let recorder = Recorder::new();
    let anew = |network| run(network, text).outcome.observation.anew.into_iter().collect::<Vec<_>>();
    assert_eq!(anew(Network::Kept(recorder.clone())), ["198.51.100.2:9"]);
    assert_eq!(anew(Network::Given(recorder.record().unwrap())), ["198.51.100.2:9"]);
    assert_eq!(anew(Network::Real), [] as [&str; 0]);
}
