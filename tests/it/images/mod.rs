//! Images that become environments: from real registries, layouts and archives, and from hostile hands.

mod encrypted;
mod hostile;
mod make;
mod registry;
mod run;
mod runtimes;
mod science;
mod stranger;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use self::make::{Layer, Layout, config, directory, file, hard_link, listed, program, symlink};
use crate::cloud::servers;
use crate::fault::needs;
use crate::sandbox::Sandbox;

const DEFINITION: &str = "\
# What it is for
version: v1  # the first
steps:
  copy:  # it copies
    run: cp a.txt out.txt
    inputs: [a.txt]
    outputs: [out.txt]
  count:
    run: wc -c < out.txt > count.txt
    inputs: [out.txt]
    outputs: [count.txt]
";

fn project() -> Sandbox {
    let sandbox = Sandbox::with_pipeline(DEFINITION);
    sandbox.write("a.txt", "1\n");
    sandbox.write(".gitignore", "/out.txt\n/count.txt\n");
    sandbox.commit("second");
    sandbox
}

/// Returns the answer of a command that must succeed.
fn told(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let (answer, code) = sandbox.json(arguments);
    assert_eq!(code, 0, "{arguments:?}: {answer}");
    answer
}

/// Returns the path of an image beside the project.
fn beside(sandbox: &Sandbox, name: &str) -> String {
    sandbox.beside(name).to_str().unwrap().to_owned()
}

/// Returns what is in the image with this pin, by exporting it.
fn files_of(sandbox: &Sandbox, revision: &str) -> Vec<String> {
    let archive = sandbox.beside(&format!("files-of-{revision}.tar"));
    told(sandbox, &["env", "export", revision, archive.to_str().unwrap()]);
    listed(&layer_of(&archive))
}

/// Takes the one layer out of an exported archive, and returns where it is.
fn layer_of(archive: &Path) -> PathBuf {
    let to = archive.with_extension("unpacked");
    fs::create_dir_all(&to).unwrap();
    let done = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&to).status().unwrap();
    assert!(done.success());
    let index: Value = serde_json::from_slice(&fs::read(to.join("manifest.json")).unwrap()).unwrap();
    to.join(index[0]["Layers"][0].as_str().unwrap())
}

/// A root of a system with one program, which does what many do.
fn small_root() -> Vec<make::Member> {
    vec![
        directory("bin/"),
        program("bin/tool", "#!/nowhere\n"),
        hard_link("bin/other", "bin/tool"),
        symlink("sbin", "bin"),
        file("etc/passwd", "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n"),
        directory("empty"),
    ]
}

#[test]
fn an_image_in_a_layout_becomes_a_part_of_the_snapshot() {
    let sandbox = project();
    let (_, image) = Layout::with(sandbox.beside("tools"), &[Layer::gzip(&small_root())]);
    let answer = told(&sandbox, &["env", "add", &beside(&sandbox, "tools")]);
    let named = format!("tools@{image}");
    assert_eq!(answer["image"], named);
    assert_eq!((&answer["layers"], &answer["files"]), (&1.into(), &4.into()), "{answer}");
    assert_eq!(answer["bytes"], 11 + 11 + 49);
    let keys: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["bytes", "environment", "files", "image", "layers", "new_bytes"]);
    let line = format!("version: v1  # the first\nenvironment: {{image: \"{named}\"}}\n");
    assert_eq!(sandbox.read(".pipeline/pipeline.yaml"), DEFINITION.replace("version: v1  # the first\n", &line));

    let pin = format!(".pipeline/environments/{}.json", image.trim_start_matches("sha256:"));
    let environment = answer["environment"].as_str().unwrap();
    let expected = format!(
        "{{\"bytes\":71,\"config\":{{\"env\":{{\"KIND\":\"image\",\"PATH\":\"/usr/bin:/bin\"}},\"user\":\"1000:1000\",\
         \"workdir\":\"/srv\"}},\"files\":4,\"image\":\"{image}\",\"tree\":\"{environment}\"}}\n"
    );
    assert_eq!(sandbox.read(&pin), expected);
    sandbox.commit("environment");
    let snapshot = told(&sandbox, &["snapshot", "--tag", "v1"]);
    let id = told(&sandbox, &["show", "v1"])["snapshot"].clone();
    assert_eq!(snapshot["snapshot"], id);

    let shown = told(&sandbox, &["env", "show", "v1"]);
    let shown = &shown["environments"][0];
    assert_eq!(shown["pin"]["tree"], environment);
    assert_eq!(shown["steps"], serde_json::json!(["copy", "count"]));
    let list = told(&sandbox, &["env", "list"]);
    assert_eq!(list["environments"][0]["name"], "tools");
    assert_eq!(list["environments"][0]["here"], true);
    assert_eq!(
        files_of(&sandbox, "v1"),
        [
            "drwxr-xr-x bin/",
            "-rwxr-xr-x bin/other",
            "-rwxr-xr-x bin/tool",
            "drwxr-xr-x empty/",
            "drwxr-xr-x etc/",
            "-rw-r--r-- etc/passwd",
            "lrwxrwxrwx sbin -> bin",
        ]
    );
}

#[test]
fn a_commit_alone_determines_the_environment_of_its_snapshot() {
    let sandbox = project();
    Layout::with(sandbox.beside("tools"), &[Layer::of(&small_root())]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "tools"), "--step", "copy"]);
    sandbox.commit("environment");
    let of_tree = told(&sandbox, &["snapshot"])["snapshot"].clone();
    let clone = sandbox.beside("clone");
    sandbox.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    // Without the image, and without any record: the pin is in the commit.
    let (of_commit, code) = sandbox.json_in(&clone, &["show", "HEAD"]);
    assert_eq!((of_commit["snapshot"].clone(), code), (of_tree, 0), "{of_commit}");
    let (list, _) = sandbox.json_in(&clone, &["env", "list"]);
    assert_eq!(list["environments"][0]["here"], false, "{list}");
    assert_eq!(list["environments"][0]["steps"], serde_json::json!(["copy"]));
}

#[test]
fn layers_lie_over_each_other_and_take_away_what_is_below() {
    let sandbox = project();
    let layers = [
        Layer::gzip(&[
            file("a/old", "1"),
            file("a/deep/old", "2"),
            file("b/stays", "3"),
            file("b/goes", "4"),
            directory("dir"),
            file("dir/x", "5"),
            file("file", "6"),
            program("run", "7"),
            symlink("link", "b"),
        ]),
        Layer::zstd(&[
            // In whatever order: what is new in the directory stays.
            file("a/new", "8"),
            file("a/.wh..wh..opq", ""),
            file("b/.wh.goes", ""),
            file(".wh.gone-before", ""),
            file("dir", "now a file"),
            directory("file"),
            file("file/y", "9"),
        ]),
        Layer::of(&[
            hard_link("b/again", "b/stays"),
            file("link/through", "10"),
            file("run", "no program any more"),
            directory("z/"),
            // Left by a file system of the past.
            file(".wh..wh.plnk", ""),
        ]),
    ];
    Layout::with(sandbox.beside("layers"), &layers);
    told(&sandbox, &["env", "add", &beside(&sandbox, "layers")]);
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    let files = files_of(&sandbox, "v1");
    assert_eq!(
        files,
        [
            "drwxr-xr-x a/",
            "-rw-r--r-- a/new",
            "drwxr-xr-x b/",
            "-rw-r--r-- b/again",
            "-rw-r--r-- b/stays",
            "-rw-r--r-- b/through",
            "-rw-r--r-- dir",
            "drwxr-xr-x file/",
            "-rw-r--r-- file/y",
            "lrwxrwxrwx link -> b",
            "-rw-r--r-- run",
            "drwxr-xr-x z/",
        ]
    );
}

/// A step finds the files of the image and none of this machine.
#[test]
fn a_step_runs_in_an_image_that_was_taken_in() {
    let test = "a_step_runs_in_an_image_that_was_taken_in";
    let Some(busybox) = needs(test, "busybox (the package busybox-static)", servers::program("busybox")) else {
        return;
    };
    let sandbox = Sandbox::with_pipeline(
        "steps:\n  look:\n    run: cat a.txt /etc/made-for-tests > out.txt; ls / >> out.txt; echo $KIND >> out.txt\n    \
         inputs: [a.txt]\n    outputs: [out.txt]\n",
    );
    sandbox.write("a.txt", "of the project\n");
    sandbox.write(".gitignore", "/out.txt\n");
    let root = [
        directory("proc"),
        directory("sys"),
        directory("dev"),
        directory("tmp"),
        program("bin/busybox", fs::read(busybox).unwrap()),
        symlink("bin/sh", "busybox"),
        hard_link("bin/cat", "bin/busybox"),
        hard_link("bin/ls", "bin/busybox"),
        file("etc/made-for-tests", "of the image\n"),
        file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
    ];
    let layers = [Layer::gzip(&root)];
    let mut config = config(&layers);
    config["config"]["User"] = "".into();
    config["config"]["WorkingDir"] = "".into();
    let layout = Layout::empty(sandbox.beside("small"));
    layout.point(&[("latest", &layout.manifest(&layers, &config))]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "small")]);
    sandbox.commit("environment");
    let answer = sandbox.pv(&["run"]);
    let out = fs::read_to_string(sandbox.path("out.txt")).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert!(out.starts_with("of the project\nof the image\n"), "{out}");
    assert!(out.ends_with("\nimage\n") && !out.contains("\nusr\n"), "{out}");
}

/// Who may do more than others in an image may do so nowhere else.
#[test]
fn setuid_and_other_rights_are_left_behind() {
    let sandbox = project();
    let with_mode = |path: &str, mode| make::Member { mode, ..file(path, "x") };
    let members =
        [with_mode("su", 0o4755), with_mode("sticky", 0o1666), with_mode("group", 0o2710), with_mode("others", 0o655)];
    Layout::with(sandbox.beside("rights"), &[Layer::of(&members)]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "rights")]);
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    assert_eq!(
        files_of(&sandbox, "v1"),
        ["-rwxr-xr-x group", "-rw-r--r-- others", "-rw-r--r-- sticky", "-rwxr-xr-x su"]
    );
}

#[test]
fn two_images_that_share_files_share_objects() {
    let sandbox = project();
    let noise: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let base = [file("lib/large", &noise), file("lib/small", "small")];
    Layout::with(sandbox.beside("one"), &[Layer::gzip(&base)]);
    Layout::with(sandbox.beside("two"), &[Layer::gzip(&base), Layer::gzip(&[file("own", "mine")])]);
    let one = told(&sandbox, &["env", "add", &beside(&sandbox, "one"), "--no-edit"]);
    let two = told(&sandbox, &["env", "add", &beside(&sandbox, "two"), "--no-edit"]);
    let again = told(&sandbox, &["env", "add", &beside(&sandbox, "two"), "--no-edit"]);
    let new = |answer: &Value| answer["new_bytes"].as_u64().unwrap();
    assert!(new(&one) > 1_200_000, "{one}");
    assert!(new(&two) < 1_000, "{two}");
    assert_eq!(new(&again), 0);
    assert_eq!(sandbox.read(".pipeline/pipeline.yaml"), DEFINITION, "it was to be left as it is");
}

#[test]
fn what_is_exported_is_taken_in_again_as_the_same_files() {
    let sandbox = project();
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(120));
    let mut members = small_root();
    members.extend([symlink("far", &"../".repeat(60))]);
    let with_long = {
        // Longer names than a header holds are in one of their own.
        let mut bytes = make::tar(&members);
        bytes.truncate(bytes.len() - 1024);
        let extension = make::Member { kind: b'L', ..file("././@LongLink", format!("{long}\0")) };
        bytes.extend(make::tar(&[extension, file("short", "at a long name")]));
        bytes
    };
    Layout::with(sandbox.beside("tools"), &[Layer::plain(with_long)]);
    let added = told(&sandbox, &["env", "add", &beside(&sandbox, "tools")]);
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    let archives = ["first.tar", "second.tar"].map(|name| sandbox.beside(name));
    let mut answers = archives.iter().map(|to| told(&sandbox, &["env", "export", "v1", to.to_str().unwrap()]));
    let (first, second) = (answers.next().unwrap(), answers.next().unwrap());
    assert_eq!(first["image"], second["image"]);
    assert!(fs::read(&archives[0]).unwrap() == fs::read(&archives[1]).unwrap(), "the same bytes");
    if cfg!(target_arch = "x86_64") {
        // Those of every version: if this changes, what was exported before cannot be made again.
        assert_eq!(first["image"], "sha256:325a5f6987f8b5e23dd205ae78faf3c643b0de58e65f0c5c41f2b4c778c80f9b");
    }
    let again = told(&sandbox, &["env", "add", &beside(&sandbox, "first.tar"), "--no-edit"]);
    assert_eq!((&again["environment"], &again["new_bytes"]), (&added["environment"], &0.into()));
    assert_eq!(again["image"], format!("tools@{}", first["image"].as_str().unwrap()));
    let pins: Vec<_> = told(&sandbox, &["env", "list"])["environments"].as_array().unwrap().clone();
    assert_eq!(pins.len(), 2);
}

/// What older versions of `docker save` write: no digests, and links where layers are the same.
#[test]
fn an_archive_of_docker_is_taken_in() {
    let sandbox = project();
    let layers = [Layer::of(&small_root()), Layer::of(&[file("more", "2")])];
    let config = config(&layers).to_string();
    let index = r#"[{"Config":"c.json","RepoTags":["team/tools:v1"],"Layers":["1/layer.tar","2/layer.tar"]}]"#;
    let archive = make::tar(&[
        file("0/layer.tar", &layers[0].stored),
        directory("1/"),
        symlink("1/layer.tar", "../0/layer.tar"),
        file("2/layer.tar", &layers[1].stored),
        file("c.json", &config),
        file("manifest.json", index),
    ]);
    fs::write(sandbox.beside("saved.tar"), &archive).unwrap();
    let added = told(&sandbox, &["env", "add", &beside(&sandbox, "saved.tar")]);
    assert!(added["image"].as_str().unwrap().starts_with("team/tools@sha256:"), "{added}");
    assert_eq!((&added["layers"], &added["files"]), (&2.into(), &5.into()));
    // The same layers in a layout are the same files.
    Layout::with(sandbox.beside("layout"), &layers);
    let other = told(&sandbox, &["env", "add", &beside(&sandbox, "layout")]);
    assert_eq!(other["environment"], added["environment"]);
}

#[test]
fn one_of_several_images_in_a_layout_has_to_be_named() {
    let sandbox = project();
    let layout = Layout::empty(sandbox.beside("several"));
    let [one, two] = ["1", "2"].map(|text| {
        let layers = [Layer::of(&[file("it", text)])];
        layout.manifest(&layers, &config(&layers))
    });
    layout.point(&[("v1", &one), ("v2", &two)]);
    let refused = sandbox.pv(&["env", "add", &beside(&sandbox, "several")]);
    assert_eq!(
        refused,
        "--- stderr\nerror: `[ROOT]/several` holds several images: `v1`, `v2`\n\
         hint: name one: `oci:DIR:TAG`, or save a single one\n--- exit 2\n"
    );
    let image =
        |tag: &str| told(&sandbox, &["env", "add", &format!("oci:../several:{tag}"), "--no-edit"])["image"].clone();
    assert_ne!(image("v1"), image("v2"));
}

#[test]
fn an_image_without_a_pin_is_an_error_with_the_command_that_makes_one() {
    let image = format!("debian@sha256:{}", "a".repeat(64));
    let sandbox =
        Sandbox::with_pipeline(&format!("environment: {{image: \"{image}\"}}\nsteps: {{a: {{run: 'true'}}}}\n"));
    for command in ["snapshot", "run", "status"] {
        let told = sandbox.pv(&[command]);
        let expected = format!(
            "--- stderr\nerror: the working tree has no pin of the image `{image}`\n\
             hint: `pv env add {image} --no-edit` takes it in and writes the pin\n--- exit 5\n"
        );
        assert_eq!(told, expected, "{command}");
    }
    let (answer, code) = sandbox.json(&["check"]);
    assert_eq!((code, &answer["checks"][0]["check"]), (5, &"pins".into()), "{answer}");
    sandbox.write(&format!(".pipeline/environments/{}.json", "a".repeat(64)), "<<<<<<< ours\n");
    let told = sandbox.pv(&["snapshot"]);
    assert!(told.contains("cannot be understood\nhint: after a merge conflict"), "{told}");
}

#[test]
fn what_cannot_be_edited_is_said_before_anything_is_fetched() {
    let sandbox = project();
    // Nobody listens there.
    let nowhere = "127.0.0.1:1/x:1";
    let told = sandbox.pv(&["env", "add", nowhere, "--step", "cpoy"]);
    assert!(told.contains("error: step `cpoy` of `.pipeline/pipeline.yaml` cannot be edited"), "{told}");
    let told = sandbox.pv(&["env", "add", "Not An Image"]);
    assert!(told.contains("error: `Not An Image` names no image: a name is made of small letters"), "{told}");
    let told = sandbox.pv(&["env", "add", nowhere]);
    assert!(told.contains("error: cannot fetch `1` from `127.0.0.1:1/x`\n  because: "), "{told}");
    assert!(told.ends_with("--- exit 5\n"), "{told}");
    assert!(!sandbox.exists(".pipeline/environments"));
}

/// Until the file in the Git directory goes, an image stays: it may be what other branches need.
#[test]
fn a_collection_of_garbage_keeps_images_that_have_a_pin() {
    let sandbox = project();
    Layout::with(sandbox.beside("tools"), &[Layer::of(&small_root())]);
    let added = told(&sandbox, &["env", "add", &beside(&sandbox, "tools"), "--no-edit"]);
    fs::remove_dir_all(sandbox.path(".pipeline/environments")).unwrap();
    let collect = || drop(told(&sandbox, &["gc", "--keep-days", "0"]));
    let is_here =
        || sandbox.pv_command(&["show", added["environment"].as_str().unwrap()]).output().unwrap().status.success();
    collect();
    assert!(is_here(), "the pin in the Git directory keeps it");
    fs::remove_dir_all(sandbox.path(".git/pv/environments")).unwrap();
    collect();
    assert!(!is_here(), "nothing leads to it any more");
}

#[test]
fn an_image_can_be_removed_unless_the_definition_names_it_and_what_snapshots_need_stays() {
    let sandbox = project();
    let (_, shared) = Layout::with(sandbox.beside("tools"), &[Layer::gzip(&small_root())]);
    let own = [Layer::gzip(&[file("bin/tool", "#!/nowhere\n"), file("own", "of this one\n")])];
    let (_, other) = Layout::with(sandbox.beside("other"), &own);
    told(&sandbox, &["env", "add", &beside(&sandbox, "tools")]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "other"), "--no-edit"]);
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    let refused = sandbox.pv(&["env", "remove", &shared]);
    assert!(refused.contains(&format!("error: `{shared}` is named by the definition, for copy, count\n")), "{refused}");
    let unknown = sandbox.pv(&["env", "remove", "fffff"]);
    assert!(unknown.contains("error: no environment here is called `fffff`\n"), "{unknown}");
    let answer = told(&sandbox, &["env", "remove", &other[..19]]);
    assert_eq!((&answer["image"], &answer["freed_bytes"]), (&Value::from(other.as_str()), &Value::from(0)));
    // One of its two files is also one of the other image, which a version needs.
    assert_eq!((&answer["garbage_bytes"], &answer["needed_bytes"]), (&Value::from(12), &Value::from(11)), "{answer}");
    let pins = || {
        let count = |directory: &str| {
            let entries = fs::read_dir(sandbox.path(directory)).unwrap().flatten();
            entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "json")).count()
        };
        (count(".pipeline/environments"), count(".git/pv/environments"))
    };
    assert_eq!(pins(), (1, 1));
    let gone = told(&sandbox, &["gc", "--keep-days", "0", "--undo-days", "0", "--all"]);
    assert_eq!(gone["bytes"], 12, "what was foretold: {gone}");
    let told_text = sandbox.pv(&["env", "remove", "--force", &format!("tools@{shared}")]);
    assert!(
        told_text.contains("71 B of it stay: snapshots that are kept need them\n")
            || told_text.contains("60 B of it stay"),
        "{told_text}"
    );
    assert_eq!(pins(), (0, 0));
    assert_eq!(files_of(&sandbox, "v1").len(), 7, "the version has it still");
    let told_text = sandbox.pv(&["run"]);
    assert!(told_text.contains("has no pin of the image `tools@"), "{told_text}");
}

#[test]
fn a_pin_that_nobody_understands_lets_nothing_be_taken_away() {
    let sandbox = project();
    Layout::with(sandbox.beside("tools"), &[Layer::of(&small_root())]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "tools"), "--no-edit"]);
    for entry in fs::read_dir(sandbox.path(".git/pv/environments")).unwrap() {
        fs::write(entry.unwrap().path(), "{}").unwrap();
    }
    let told = sandbox.pv(&["gc"]);
    assert!(told.contains("error: it is not known which images are to be kept"), "{told}");
    assert!(told.contains("hint: nothing was taken away"), "{told}");
}
