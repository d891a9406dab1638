//! Jobs that see the files of an image in place of the machine's. The image has one program, a static busybox.

use std::path::Path;

use super::isolated_tests::Bench;
use super::*;
use crate::disk::{Durability, make_directory, write_whole};

/// Lays an image out in the bench; `None` where there is no busybox to make it of.
fn image(bench: &Bench, user: (u32, u32)) -> Option<Image> {
    let at = |path: &str| bench.base().parent().unwrap().join(path);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let Some(busybox) = busybox else {
        assert!(crate::host::variable("CI").is_none(), "busybox is not installed");
        eprintln!("NOT TESTED: jobs in an image: busybox is not installed");
        return None;
    };
    for directory in ["image/usr/bin", "image/etc", "image/tmp", "image-upper", "image-scratch"] {
        make_directory(&at(directory)).unwrap();
    }
    std::fs::copy(busybox, at("image/usr/bin/busybox")).unwrap();
    std::os::unix::fs::symlink("usr/bin", at("image/bin")).unwrap();
    for name in ["sh", "cat", "ls", "id", "env", "touch", "readlink"] {
        // As an image has them: links that mean its own root.
        std::os::unix::fs::symlink("/bin/busybox", at("image/usr/bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nmodel:x:1000:1001::/:/bin/sh\n";
    write_whole(&at("image/etc/passwd"), passwd.as_bytes(), Durability::Deferred).unwrap();
    write_whole(&at("image/only-here"), b"of the image\n", Durability::Deferred).unwrap();
    Some(Image { files: "image".into(), upper: ("image-upper".into(), "image-scratch".into()), user })
}

fn run_in(bench: &mut Bench, command: &Command, user: (u32, u32)) -> Option<(Outcome, String)> {
    let image = image(bench, user)?;
    bench.environment.insert("PATH".to_owned(), "/nowhere:/bin".into());
    let world = World { image: Some(image), ..bench.world() };
    let ran = bench.run_in(command, &world);
    Some((ran.outcome, ran.printed))
}

#[test]
fn a_job_in_an_image_finds_its_files_and_none_of_the_machine() {
    let mut bench = Bench::new();
    bench.file("in.txt", "of the project\n");
    let script = "cat /only-here in.txt; readlink /proc/self/root >/dev/null && echo proc; \
                  ls / | tr '\\n' ' '; echo; echo x > /etc/new; cat /etc/new; echo out > out.txt; \
                  cat /dev/null; test -c /dev/urandom && echo random; touch /dev/shm/a /tmp/b; test -e /root/.cargo || echo clean";
    let Some((outcome, printed)) = run_in(&mut bench, &Command::Shell(script.replace("tr", "busybox tr")), (0, 0))
    else {
        return;
    };
    assert_eq!(outcome.end, End::Exited(0), "{printed}");
    let listing = "bin dev etc only-here proc pv sys tmp usr ";
    assert_eq!(printed, format!("of the image\nof the project\nproc\n{listing}\nx\nrandom\nclean\n"));
    let at = |path: &str| bench.base().parent().unwrap().join(path);
    assert_eq!(std::fs::read_to_string(at("upper/out.txt")).unwrap(), "out\n");
    assert!(!at("image/etc/new").exists(), "an image is not written to");
    assert!(at("image-upper/etc/new").exists());
    assert!(!Path::new("/etc/new").exists());
}

#[test]
fn a_job_in_an_image_is_the_user_that_it_wants_and_may_write_its_outputs() {
    for (user, expected) in [((0, 0), "uid=0(root) gid=0"), ((1000, 1001), "uid=1000(model) gid=1001")] {
        let mut bench = Bench::new();
        let script = "id; echo mine > out.txt && echo also > /etc/mine && echo written";
        let Some((outcome, printed)) = run_in(&mut bench, &Command::Shell(script.to_owned()), user) else { return };
        assert_eq!(outcome.end, End::Exited(0), "{printed}");
        assert!(printed.starts_with(expected) && printed.ends_with("written\n"), "{printed}");
        let written = bench.base().parent().unwrap().join("upper/out.txt");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(written).unwrap());
        assert_eq!(owner, rustix::process::geteuid().as_raw(), "outside it is who we are");
    }
}

#[test]
fn a_program_is_looked_for_in_the_image_as_its_links_lead_there() {
    let mut bench = Bench::new();
    let words = |words: &[&str]| Command::Direct(words.iter().map(|word| (*word).to_owned()).collect());
    let Some((outcome, printed)) = run_in(&mut bench, &words(&["cat", "/only-here"]), (0, 0)) else { return };
    assert_eq!((outcome.end, printed.as_str()), (End::Exited(0), "of the image\n"));
    let read = &outcome.observation.touched[Path::new("/only-here")];
    assert!(read.read && outcome.observation.isolated, "it is observed as elsewhere");
    // The machine has it, the image has not.
    let mut bench = Bench::new();
    let image = image(&bench, (0, 0));
    bench.environment.insert("PATH".to_owned(), "/usr/bin:/bin".into());
    let world = World { image, ..bench.world() };
    for (command, told) in [
        (words(&["git", "--version"]), "program `git` is not found"),
        (words(&["/etc/passwd"]), "program `/etc/passwd` is not executable"),
        (words(&["passwd"]), "program `passwd` is not found"),
    ] {
        let error = bench.try_in(&command, &world).unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}

#[test]
fn a_job_in_an_image_can_be_cut_off_and_has_the_names_of_the_machine_if_not() {
    for offline in [true, false] {
        let mut bench = Bench::new();
        bench.offline = offline;
        let script = "test -e /etc/resolv.conf && echo names; test -e /sys/class/net/lo && echo lo; true";
        let Some((outcome, printed)) = run_in(&mut bench, &Command::Shell(script.to_owned()), (0, 0)) else { return };
        assert_eq!(outcome.end, End::Exited(0), "{printed}");
        assert_eq!(printed.contains("names"), !offline && Path::new("/etc/resolv.conf").is_file(), "{printed}");
    }
}
