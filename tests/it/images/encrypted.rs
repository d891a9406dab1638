//! A registry that encrypts, with a certificate that only who was told of it trusts, behind a proxy that alone knows its name.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::make::{Layer, Layout};
use super::registry::Hub;
use super::{project, small_root};
use crate::cloud::servers::{Access, NAMED};

/// A proxy that leads everybody to the same port of the loopback, whatever is asked for. Ends when it is dropped.
struct Proxy {
    port: u16,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    fn to(port_behind: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, over) = (Arc::clone(&connections), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                // Whoever hangs up in the middle is no reason to stop.
                let _ = lead(stream.unwrap(), port_behind);
            }
        });
        Self { port, connections, is_over, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Passes on what comes from either side, once it was asked to.
fn lead(mut near: TcpStream, port: u16) -> std::io::Result<()> {
    let mut asked = BufReader::new(near.try_clone()?);
    let mut line = String::new();
    while asked.read_line(&mut line)? > 2 {
        assert!(line.starts_with(&format!("CONNECT {NAMED}:")) || line.contains(": "), "{line}");
        line.clear();
    }
    let mut far = TcpStream::connect(("127.0.0.1", port))?;
    write!(near, "HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_far, mut to_near) = (far.try_clone()?, near);
    thread::spawn(move || {
        let _ = std::io::copy(&mut asked, &mut far);
        let _ = far.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Write);
    });
    Ok(())
}

#[test]
fn a_registry_with_a_certificate_of_its_own_is_asked_by_who_trusts_it_and_by_nobody_else() {
    let test = "a_registry_with_a_certificate_of_its_own_is_asked_by_who_trusts_it_and_by_nobody_else";
    let Some(hub) = Hub::start(test, Access::Encrypted) else { return };
    let sandbox = project();
    let (layout, image) = Layout::with(sandbox.beside("layout"), &[Layer::gzip(&small_root())]);
    hub.push(&layout, "team/tools:1");
    let proxy = Proxy::to(hub.server.port);
    let add = |variables: &[(&str, String)]| {
        let mut command = sandbox.pv_command(&["env", "add", &format!("{NAMED}/team/tools:1")]);
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port));
        sandbox.tell(&command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap())
    };
    let certificate = hub.server.directory.path().join("certificate").to_str().unwrap().to_owned();
    let refused = add(&[]);
    assert!(refused.contains("certificate") && refused.contains("--- exit 5"), "{refused}");
    assert!(proxy.connections.load(Ordering::Relaxed) > 0);
    assert!(!sandbox.exists(".pipeline/environments"));
    let added = add(&[("SSL_CERT_FILE", certificate)]);
    assert!(added.contains(&format!("image {NAMED}/team/tools@{image}\n")), "{added}");
}
