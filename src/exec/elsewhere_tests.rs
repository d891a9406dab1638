//! Jobs of other users, and jobs where the kernel lacks or refuses something.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use super::isolated_tests::{Bench, not_tested, say_untested};
use super::strace_tests::refuse;
use super::*;
use crate::host;

/// Somebody who has no place on any system.
const USER: u32 = 61_001;

/// The tests' program and a directory for temporary files, both for [`USER`].
struct Stranger {
    root: tempfile::TempDir,
}

impl Stranger {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let set_mode = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        set_mode(root.path());
        let program = root.path().join("tests");
        std::fs::copy(host::own_program().unwrap(), &program).unwrap();
        set_mode(&program);
        disk::make_directory(&root.path().join("tmp")).unwrap();
        Self { root }
    }

    fn program(&self) -> PathBuf {
        self.root.path().join("tests")
    }

    /// Runs a program that becomes the tests' one; returns what it printed if it failed.
    fn run(&self, words: &[&str], variable: Option<&str>) -> Result<(), String> {
        #[expect(clippy::disallowed_methods, reason = "the tests as processes of their own")]
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.root.path()).env_clear();
        // Programs below a home that is closed to others are none for this user.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("TMPDIR", self.root.path().join("tmp"));
        command.env("HOME", self.root.path().join("tmp")).envs(variable.map(|name| (name, "1")));
        let output = command.output().map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(printed) }
    }
}

#[test]
fn an_ordinary_user_has_all_of_it_too() {
    if rustix::process::geteuid().as_raw() != 0 {
        return say_untested("isolated jobs of root", "the tests run as an ordinary user");
    }
    let stranger = Stranger::new();
    chown(stranger.root.path().join("tmp"), Some(USER), Some(USER)).unwrap();
    let program = stranger.program();
    let user = format!("--reuid={USER}");
    let group = format!("--regid={USER}");
    let words = ["setpriv", &user, &group, "--clear-groups", "--inh-caps=-all"];
    if let Err(why) = stranger.run(&[&words[..], &["true"]].concat(), None) {
        return not_tested("isolated jobs of an ordinary user", &why);
    }
    let tests = ["exec::isolated_tests", "exec::network_tests", "exec::strace_tests::a_traced"];
    let all = [&words[..], &[program.to_str().unwrap()], &tests, &["--test-threads=2"]].concat();
    stranger.run(&all, None).unwrap_or_else(|printed| panic!("{printed}"));
}

#[test]
fn where_no_users_can_be_made_a_world_is_refused_with_a_reason_and_a_job_is_still_observed() {
    const TEST: &str = "exec::elsewhere_tests::where_no_users_can_be_made_a_world_is_refused_with_a_reason_and_a_job_is_still_observed";
    if host::variable_os("PV_TEST_WITHOUT_USERS").is_none() {
        let stranger = Stranger::new();
        let program = stranger.program();
        let drop = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \
            --securebits=+noroot \"$@\"";
        let words = ["unshare", "--user", "--map-root-user", "sh", "-c", drop, "sh"];
        if let Err(why) = stranger.run(&[&words[..], &["true"]].concat(), None) {
            return not_tested("where no users can be made", &why);
        }
        let all = [&words[..], &[program.to_str().unwrap(), "--exact", TEST]].concat();
        return stranger.run(&all, Some("PV_TEST_WITHOUT_USERS")).unwrap_or_else(|printed| panic!("{printed}"));
    }
    let bench = Bench::new();
    let Err(ExecError::World(obstacle)) = try_world(&bench.world()) else { panic!("a world was made") };
    assert_eq!(obstacle.cause, Cause::Setting("user.max_user_namespaces", 0), "{obstacle}");
    bench.file("in.txt", "x\n");
    let ran = bench.run_in_the_open("cat in.txt");
    assert_eq!((ran.outcome.end, ran.printed.as_str()), (End::Exited(0), "x\n"));
    let observation = &ran.outcome.observation;
    assert_eq!((observation.rung, observation.isolated), (Rung::Notify, false));
    assert!(observation.touched[&bench.base().join("in.txt")].read);
}

#[test]
fn a_job_without_users_of_its_own_cannot_look_into_this_process_either() {
    let stranger = Stranger::new();
    let program = stranger.program();
    let drop = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", drop, "sh"];
    if let Err(why) = stranger.run(&[&words[..], &["true"]].concat(), None) {
        return not_tested("where no users can be made", &why);
    }
    let test = "exec::isolated_tests::what_this_process_knows_is_closed_to_the_job";
    let all = [&words[..], &[program.to_str().unwrap(), "--exact", test]].concat();
    stranger.run(&all, None).unwrap_or_else(|printed| panic!("{printed}"));
}

/// Does something on a thread of its own, which may lose what it can do.
fn apart(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(test).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_kernel_that_cannot_close_all_at_once_leaves_nothing_to_the_job_either() {
    apart(|| {
        refuse(libc::SYS_close_range, libc::ENOSYS);
        let bench = Bench::new();
        let file = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(bench.run("ls /proc/self/fd | wc -l").printed.trim(), "4");
        assert_eq!(bench.run_in_the_open("ls /proc/self/fd | wc -l").printed.trim(), "4");
    });
}

#[test]
fn where_reports_cannot_be_taken_over_a_job_is_traced_or_not_observed_and_says_so() {
    apart(|| {
        refuse(libc::SYS_pidfd_getfd, libc::EPERM);
        let bench = Bench::new();
        bench.file("in.txt", "x\n");
        let ran = bench.run("cat in.txt");
        assert_eq!((ran.printed.as_str(), ran.outcome.observation.rung), ("x\n", Rung::Ptrace));
        assert_eq!(ran.inside(), ["in.txt: read"]);
        let ran = bench.run_in_the_open("cat in.txt");
        assert_eq!(ran.printed, "x\n");
        assert_eq!(ran.outcome.observation, Observation::default());
    });
}

#[test]
fn where_tracing_is_refused_too_a_job_runs_unobserved() {
    apart(|| {
        refuse(libc::SYS_pidfd_getfd, libc::EPERM);
        refuse(libc::SYS_ptrace, libc::EPERM);
        let ran = Bench::new().run("echo x");
        let observation = &ran.outcome.observation;
        assert_eq!((ran.printed.as_str(), observation.rung, observation.isolated), ("x\n", Rung::None, true));
    });
}
