//! Whom a job talks to, with real sockets.

use super::isolated_tests::Bench;
use super::*;

const SERVER: &str = "
import os, socket, sys, time
def serve(server):
    talk, _ = server.accept(); talk.sendall(talk.recv(9)); talk.close()
def listening(family=socket.AF_INET, address='127.0.0.1'):
    server = socket.socket(family); server.bind((address, 0)); server.listen(); return server
def asks(server):
    talk = socket.create_connection(server.getsockname()[:2]); talk.sendall(b'x'); assert talk.recv(9) == b'x'
";

/// Returns whom a Python program, isolated, was seen to talk to.
fn peers(text: &str) -> Vec<String> {
    let bench = Bench::new();
    bench.file("talks.py", &format!("{SERVER}{text}"));
    let ran = bench.run("exec python3 talks.py");
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert_eq!(ran.outcome.observation.rung, Rung::Notify);
    ran.outcome.observation.peers.into_keys().collect()
}

#[test]
fn servers_of_the_jobs_own_are_not_the_network() {
    let none: [String; 0] = [];
    let thread = "
import threading
server = listening(); threading.Thread(target=serve, args=(server,)).start(); asks(server)";
    assert_eq!(peers(thread), none, "in a thread");
    let child = "
server = listening()
if os.fork() == 0: serve(server); os._exit(0)
name = server.getsockname(); server.close()
talk = socket.create_connection(name); talk.sendall(b'x'); assert talk.recv(9) == b'x'; os.wait()";
    assert_eq!(peers(child), none, "in a child");
    let daemon = "
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        server = listening(); os.write(writing, str(server.getsockname()[1]).encode()); serve(server)
    os._exit(0)
os.wait()
talk = socket.create_connection(('127.0.0.1', int(os.read(reading, 9)))); talk.sendall(b'x'); assert talk.recv(9) == b'x'";
    assert_eq!(peers(daemon), none, "that went its own way");
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent by that.
    match probe.connect("198.51.100.1:9").and_then(|()| probe.local_addr()) {
        Ok(own) if !own.ip().is_loopback() => {
            let text = format!(
                "
import threading
server = listening(address='{}'); threading.Thread(target=serve, args=(server,)).start(); asks(server)",
                own.ip()
            );
            assert_eq!(peers(&text), none, "at the machine's address for others");
        }
        _ => super::isolated_tests::say_untested("servers at an address for others", "this machine has none"),
    }
    let datagrams = "
one = socket.socket(type=socket.SOCK_DGRAM); one.bind(('127.0.0.1', 0))
two = socket.socket(type=socket.SOCK_DGRAM); two.sendto(b'x', one.getsockname()); assert one.recv(9) == b'x'
two.sendmsg([b'y'], [], 0, one.getsockname()); assert one.recv(9) == b'y'
two.connect(one.getsockname()); two.send(b'z'); assert one.recv(9) == b'z'";
    assert_eq!(peers(datagrams), none, "by datagram");
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let six = "
import threading
server = listening(socket.AF_INET6, '::1'); threading.Thread(target=serve, args=(server,)).start(); asks(server)";
        assert_eq!(peers(six), none, "with longer addresses");
    } else {
        super::isolated_tests::say_untested("servers with longer addresses", "this machine has none");
    }
}

#[test]
fn neither_are_sockets_of_the_machine_and_the_name_of_the_machine_itself() {
    let text = "
server = socket.socket(socket.AF_UNIX); server.bind('/pv/tmp/s'); server.listen()
talk = socket.socket(socket.AF_UNIX); talk.connect('/pv/tmp/s')
socket.getaddrinfo('localhost', 80)";
    assert_eq!(peers(text), [] as [String; 0]);
}

#[test]
fn a_server_of_somebody_else_and_an_address_that_refuses_are_the_network() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = server.local_addr().unwrap();
    let text = format!("talk = socket.create_connection(('127.0.0.1', {}))", name.port());
    assert_eq!(peers(&text), [name.to_string()]);
    let far = "
talk = socket.socket(); talk.setblocking(False)
try: talk.connect(('198.51.100.1', 80))
except OSError: pass
talk = socket.socket(type=socket.SOCK_DGRAM)
try: talk.sendto(b'x', ('198.51.100.2', 53))
except OSError: pass
try: talk.sendmsg([b'x'], [], 0, ('198.51.100.3', 53))
except OSError: pass";
    assert_eq!(peers(far), ["198.51.100.1:80", "198.51.100.2:53", "198.51.100.3:53"]);
}

#[test]
fn a_job_that_is_cut_off_has_its_own_loopback_and_nothing_else() {
    let mut bench = Bench::new();
    bench.offline = true;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "{SERVER}
import threading
server = listening(); threading.Thread(target=serve, args=(server,)).start(); asks(server)
for name in ('127.0.0.1', {}), ('198.51.100.1', 80):
    try: socket.create_connection(name, 5); print('through')
    except OSError: print('refused')",
        server.local_addr().unwrap().port()
    );
    bench.file("talks.py", &text);
    let ran = bench.run("exec python3 talks.py");
    assert_eq!(ran.printed, "refused\nrefused\n");
}
