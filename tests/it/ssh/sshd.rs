//! Over a real `ssh` and a real `sshd`, each connection of which is a process of its own on a socket of the test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pv::remote::{Bucket, Directory, Programs, Ssh, Trouble};

use super::{Eventful, Long, contract, lay, long, program, signal};
use crate::fault::needs;

const SSHD: &str = "/usr/sbin/sshd";
/// Somebody who is nobody else on this machine.
const STRANGER: u32 = 61_003;

/// Who is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The user of this test.
    Same,
    /// Somebody with no rights, for which the user of this test must be root.
    Stranger,
}

/// A machine that `ssh` reaches, which is this one.
struct Machine {
    scratch: tempfile::TempDir,
    port: u16,
    user: String,
    state: Arc<State>,
    door: Option<JoinHandle<()>>,
}

struct State {
    is_open: AtomicBool,
    has_ended: AtomicBool,
    sessions: Mutex<Vec<Child>>,
}

impl Machine {
    /// Returns a machine on which a connection was made and a command executed.
    fn new(who: Who) -> Result<Self, String> {
        let machine = Self::start(who).map_err(|error| error.to_string())?;
        let options = machine.options();
        let output = Command::new("sh")
            .args(["-c", &format!("{options} -p {} 127.0.0.1 echo reached", machine.port)])
            .output()
            .map_err(|error| error.to_string())?;
        if output.stdout == b"reached\n" {
            Ok(machine)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn start(who: Who) -> std::io::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755))?;
        for name in ["host", "key", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(root.join(name))
                .stdin(Stdio::null())
                .status()?;
            assert!(made.success());
        }
        let read = |name: &str| std::fs::read_to_string(root.join(name));
        lay(root, "authorized", &read("key.pub")?);
        lay(root, "known", &format!("pv-test {}", read("host.pub")?));
        let root_path = root.display();
        lay(
            root,
            "sshd_config",
            &format!(
                "HostKey {root_path}/host\nAuthorizedKeysFile {root_path}/authorized\nStrictModes no\nUsePAM no\n\
                 PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            ),
        );
        let session = match who {
            Who::Same => {
                // The package makes it when its service starts, which never happens in a container.
                let _ = std::fs::create_dir_all("/run/sshd");
                format!("exec {SSHD} -i -f '{root_path}/sshd_config'")
            }
            Who::Stranger => {
                let entry = format!("stranger:x:{STRANGER}:{STRANGER}::{root_path}/home:/bin/sh\n");
                lay(root, "passwd", &(std::fs::read_to_string("/etc/passwd")? + &entry));
                std::fs::create_dir(root.join("home"))?;
                std::fs::copy(env!("CARGO_BIN_EXE_pv"), root.join("pv"))?;
                for name in ["home", "host"] {
                    chown(root.join(name), Some(STRANGER), Some(STRANGER))?;
                }
                format!(
                    "exec unshare --mount sh -c \"mount --bind '{root_path}/passwd' /etc/passwd && exec setpriv \
                     --reuid={STRANGER} --regid={STRANGER} --clear-groups {SSHD} -i -f '{root_path}/sshd_config'\""
                )
            }
        };
        let user = match who {
            Who::Same => String::from_utf8_lossy(&Command::new("id").arg("-un").output()?.stdout).trim().to_owned(),
            Who::Stranger => "stranger".to_owned(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            is_open: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            sessions: Mutex::default(),
        });
        let of_thread = Arc::clone(&state);
        let door = std::thread::spawn(move || of_thread.let_in(&listener, &session));
        let machine = Self { scratch, port, user, state, door: Some(door) };
        machine.lay_options("key");
        Ok(machine)
    }

    /// Lets `ssh` come with the key of this name.
    fn lay_options(&self, key: &str) {
        let (root, user) = (self.root().display(), &self.user);
        let text = format!(
            "Host *\n  HostKeyAlias pv-test\n  User {user}\n  IdentityFile {root}/{key}\n  IdentityAgent none\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {root}/known\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        );
        lay(self.root(), "ssh_config", &text);
    }

    fn root(&self) -> &Path {
        self.scratch.path()
    }

    fn options(&self) -> String {
        format!("ssh -F '{}/ssh_config'", self.root().display())
    }

    /// Returns a directory of the machine.
    fn ssh(&self, ssh: &str, pv: &str, path: &str) -> Ssh {
        let programs = Programs { ssh: Some(ssh.to_owned()), pv: pv.to_owned() };
        Ssh::connect_by(programs, "127.0.0.1".to_owned(), Some(self.port), path.to_owned())
    }

    fn remote(&self) -> PathBuf {
        self.root().join("my remote")
    }

    /// Returns the usual directory.
    fn usual(&self) -> Ssh {
        self.ssh(&self.options(), &program(), self.remote().to_str().unwrap())
    }

    fn sessions(&self) -> usize {
        self.state.sessions.lock().unwrap().len()
    }

    fn signal_all(&self, name: &str) {
        for session in self.state.sessions.lock().unwrap().iter_mut() {
            if session.try_wait().unwrap().is_none() {
                signal(name, &format!("-{}", session.id()));
            }
        }
    }
}

impl State {
    fn let_in(&self, listener: &TcpListener, session: &str) {
        for stream in listener.incoming() {
            if self.has_ended.load(Ordering::Relaxed) {
                return;
            }
            if !self.is_open.load(Ordering::Relaxed) {
                continue;
            }
            let stream = stream.unwrap();
            let child = Command::new("sh")
                .args(["-c", session])
                .stdin(OwnedFd::from(stream.try_clone().unwrap()))
                .stdout(OwnedFd::from(stream))
                .stderr(Stdio::null())
                // So that all of it can be stopped and ended, and nothing else.
                .process_group(0)
                .spawn()
                .unwrap();
            self.sessions.lock().unwrap().push(child);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
        // Wakes it up, so that it sees that this is the end.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        self.door.take().map(JoinHandle::join);
        if let Ok(mut sessions) = self.state.sessions.lock() {
            for session in sessions.iter_mut() {
                if session.try_wait().is_ok_and(|status| status.is_none()) {
                    // What has ended meanwhile is no failure.
                    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", session.id())]).status();
                }
                let _ = session.wait();
            }
        }
    }
}

const WHAT: &str = "openssh-server and openssh-client";

#[test]
fn a_directory_behind_a_real_sshd_is_a_bucket() {
    let test = "a_directory_behind_a_real_sshd_is_a_bucket";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    let before = machine.sessions();
    contract::holds(&machine.usual());
    assert_eq!(machine.sessions() - before, 1, "the user is asked for a password once, if at all");
    assert!(machine.remote().join("packs/ab/large").exists());
}

#[test]
fn an_ordinary_user_of_the_other_machine_is_enough() {
    let test = "an_ordinary_user_of_the_other_machine_is_enough";
    let what = "root, openssh-server, private mounts and `setpriv`";
    let Some(machine) = needs(test, what, Machine::new(Who::Stranger)) else { return };
    let pv = format!("'{}/pv'", machine.root().display());
    // From the home directory on: `ssh://host/~/data of all`.
    let ssh = machine.ssh(&machine.options(), &pv, "data of all");
    contract::holds(&ssh);
    assert!(machine.root().join("home/data of all/packs/ab/large").exists());
    // What that user may not do is said.
    let forbidden = machine.ssh(&machine.options(), &pv, machine.remote().to_str().unwrap());
    let error = forbidden.write("index/one", &b"1".as_slice()).unwrap_err();
    assert_eq!(error.trouble, Trouble::Refused);
    assert!(error.source.to_string().contains("Permission denied"), "{}", error.source);
}

#[test]
fn who_is_not_let_in_learns_what_ssh_says() {
    let test = "who_is_not_let_in_learns_what_ssh_says";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    machine.lay_options("other");
    let error = machine.usual().list("index").unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable);
    let told = format!("{error}: {}", error.source);
    assert!(told.starts_with("cannot list `index`: the connection to `127.0.0.1` ended: "), "{told}");
    assert!(told.contains("Permission denied (publickey)"), "{told}");
    assert!(!machine.remote().exists());
}

#[test]
fn a_machine_without_pv_is_told_from_one_that_is_not_reached() {
    let test = "a_machine_without_pv_is_told_from_one_that_is_not_reached";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    let ssh = machine.ssh(&machine.options(), "pv-of-nowhere", "x");
    let error = ssh.read("FORMAT", 100).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unsupported, "{}", error.source);
    assert!(error.source.to_string().contains("pv-of-nowhere"), "{}", error.source);
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let programs = Programs { ssh: Some(machine.options()), pv: program() };
    let nobody = Ssh::connect_by(programs, "127.0.0.1".to_owned(), Some(unused), "x".to_owned());
    let error = nobody.read("FORMAT", 100).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable);
    assert!(error.source.to_string().contains("Connection refused"), "{}", error.source);
}

#[test]
fn a_connection_on_which_nothing_moves_ends_by_itself() {
    let test = "a_connection_on_which_nothing_moves_ends_by_itself";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    // As `pv` asks of `ssh` by itself, but for the patience.
    let impatient = machine.options() + " -o ServerAliveInterval=1 -o ServerAliveCountMax=2";
    let ssh = machine.ssh(&impatient, &program(), machine.remote().to_str().unwrap());
    let bytes = 64 << 20;
    let stop = || {
        machine.state.is_open.store(false, Ordering::Relaxed);
        machine.signal_all("-STOP");
    };
    let error = ssh.write("packs/ab/pack", &Eventful::new(bytes, 1 << 20, 1, stop)).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable, "{}", error.source);
    // Once the machine is back, the next try goes on as if nothing had been.
    machine.state.is_open.store(true, Ordering::Relaxed);
    machine.signal_all("-KILL");
    ssh.write("packs/ab/pack", &Long { bytes }).unwrap();
    let read = Directory::new(machine.remote()).read("packs/ab/pack", u64::MAX).unwrap().unwrap();
    assert!(read == long(bytes));
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    let test = "a_connection_that_is_cut_is_made_again";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    let ssh = machine.usual();
    let before = machine.sessions();
    let bytes = 8 << 20;
    ssh.write("packs/ab/pack", &Eventful::new(bytes, bytes / 2, 1, || machine.signal_all("-KILL"))).unwrap();
    assert_eq!(machine.sessions() - before, 2);
    assert!(ssh.read("packs/ab/pack", u64::MAX).unwrap().unwrap() == long(bytes));
}

#[test]
fn a_key_that_is_for_one_directory_leads_to_no_other() {
    let test = "a_key_that_is_for_one_directory_leads_to_no_other";
    let Some(machine) = needs(test, WHAT, Machine::new(Who::Same)) else { return };
    let key = std::fs::read_to_string(machine.root().join("key.pub")).unwrap();
    let only = format!("{} serve --stdio '{}'", program(), machine.remote().display());
    lay(machine.root(), "authorized", &format!("restrict,command=\"{only}\" {key}"));
    let elsewhere = machine.root().join("elsewhere");
    let ssh = machine.ssh(&machine.options(), "touch /tmp/anything; pv", elsewhere.to_str().unwrap());
    ssh.write("index/one", &b"1".as_slice()).unwrap();
    assert!(!elsewhere.exists());
    assert_eq!(std::fs::read(machine.remote().join("index/one")).unwrap(), b"1");
}
