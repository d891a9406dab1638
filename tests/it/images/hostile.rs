//! Images that mean harm, or are damaged: each is refused by name, and nothing of it stays.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::make::{Layer, Layout, Member, config, directory, file, gzip, hard_link, sparse, special, symlink, tar};
use super::{beside, project, told};
use crate::sandbox::Sandbox;

/// Returns everything below a directory: paths, and the length of files.
fn everything(root: &Path) -> Vec<(String, u64)> {
    let mut found: Vec<_> = walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| (entry.path().display().to_string(), entry.metadata().unwrap().len()))
        .collect();
    found.sort();
    found
}

/// Returns what is said of an image, after a look that nothing of it is anywhere.
fn refusal(sandbox: &Sandbox, name: &str) -> String {
    let around = sandbox.path("..");
    let store = |sandbox: &Sandbox| told(sandbox, &["store"])["kinds"].clone();
    let (kinds, before) = (store(sandbox), everything(&around));
    let output = sandbox.pv_command(&["env", "add", &beside(sandbox, name)]).output().unwrap();
    let text = sandbox.tell(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert_eq!(store(sandbox), kinds, "{name}: objects were kept");
    // What the store keeps for itself is there since its first use: no more than locks without anything in them.
    let after = everything(&around).into_iter().filter(|entry| !before.contains(entry));
    let left: Vec<_> = after.filter(|(_, length)| *length > 0).collect();
    assert_eq!(left, [], "{name}: something was written");
    text
}

/// Returns the line that says why the layer with these members is refused.
fn of_members(members: &[Member]) -> String {
    of_layers(&[Layer::gzip(members)])
}

fn of_layers(layers: &[Layer]) -> String {
    let sandbox = project();
    told(&sandbox, &["snapshot"]);
    Layout::with(sandbox.beside("bad"), layers);
    let text = refusal(&sandbox, "bad");
    let line = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{text}"));
    let (before, rest) = line.split_once("sha256:").unwrap_or((line, ""));
    // The digest of a layer depends on how it is compressed.
    let because = text.lines().find_map(|line| line.strip_prefix("  because: ").map(|line| format!(" - {line}")));
    let rest = rest.get(12..).unwrap_or_default();
    format!("{}{rest}{}", before.trim_start_matches("error: "), because.unwrap_or_default())
}

#[test]
fn paths_that_lead_out_of_the_image_are_refused() {
    let out = "is refused: its path leads out of the image";
    assert_eq!(of_members(&[file("../../escaped", "x")]), format!("entry `../../escaped` of layer `` {out}"));
    assert_eq!(of_members(&[file("a/../../b", "x")]), format!("entry `a/../../b` of layer `` {out}"));
    assert_eq!(of_members(&[directory("a/..")]), format!("entry `a/..` of layer `` {out}"));
    assert_eq!(of_members(&[file("../.wh.x", "")]), format!("entry `../.wh.x` of layer `` {out}"));
    let absolute = "is refused: its path is absolute";
    assert_eq!(of_members(&[file("/etc/escaped", "x")]), format!("entry `/etc/escaped` of layer `` {absolute}"));
    let through = [symlink("out", "../../.."), file("out/escaped", "x")];
    assert_eq!(of_members(&through), format!("entry `out/escaped` of layer `` {out}"));
    // In layers of their own, too.
    let layers = [Layer::of(&through[..1]), Layer::of(&through[1..])];
    assert_eq!(of_layers(&layers), format!("entry `out/escaped` of layer `` {out}"));
    let around = [symlink("a", "b"), symlink("b", "a"), file("a/x", "x")];
    assert_eq!(of_members(&around), "entry `a/x` of layer `` is refused: it lies behind too many symbolic links");
}

#[test]
fn whiteouts_of_what_is_no_name_are_refused() {
    for path in [".wh.", "a/.wh..", "a/.wh..."] {
        let expected = format!("entry `{path}` of layer `` is refused: it has a name that no file can have");
        assert_eq!(of_members(&[file(path, "")]), expected);
    }
}

#[test]
fn hard_links_out_of_the_image_are_refused() {
    let refused = |why: &str| format!("entry `passwd` of layer `` is refused: it is a hard link to {why}");
    let link = |target: &str| of_members(&[hard_link("passwd", target)]);
    assert_eq!(link("/etc/passwd"), refused("something the path of which is absolute"));
    assert_eq!(link("../../../etc/passwd"), refused("something the path of which leads out of the image"));
    assert_eq!(link("etc/passwd"), refused("a file that is not there"));
    let through = [symlink("out", "../../../etc"), hard_link("passwd", "out/passwd")];
    assert_eq!(of_members(&through), refused("something the path of which leads out of the image"));
}

#[test]
fn devices_and_pipes_are_refused() {
    for (kind, what) in [(b'3', "a device"), (b'4', "a device"), (b'6', "a pipe")] {
        assert_eq!(
            of_members(&[special("dev/x", kind)]),
            format!("entry `dev/x` of layer `` is refused: it is {what}")
        );
    }
    let unknown = of_members(&[special("dev/x", b'V')]);
    assert_eq!(
        unknown,
        "layer `` cannot be unpacked, at or behind entry `dev/x` - it is of a kind that is not known here"
    );
}

/// A file of 10 GiB that takes a few hundred bytes: refused by its header.
#[test]
fn a_sparse_bomb_is_refused_before_a_byte_of_it_is_stored() {
    let bomb = sparse("bomb", 10 << 30);
    let size = gzip(&bomb).len();
    let layers = [Layer { stored: gzip(&bomb), unpacked: bomb }];
    let expected = format!("entry `bomb` of layer `` is refused: a layer of {size} bytes would unpack to 10737418240");
    assert_eq!(of_layers(&layers), expected);
    let huge = Layer::plain(sparse("huge", 100 << 30));
    let told = of_layers(&[huge]);
    assert!(told.contains("would unpack to 107374182400"), "{told}");
}

/// What is claimed and not there: nothing is set aside for it.
#[test]
fn a_file_that_ends_before_it_should_is_refused() {
    let claims = |bytes: u64| Member { claims: Some(bytes), ..file("short", "x") };
    let why = "layer `` cannot be unpacked, at or behind entry `short` - it ends in the middle";
    assert_eq!(of_layers(&[Layer::plain(tar(&[claims(5000)]))]), why);
    assert_eq!(of_layers(&[Layer::plain(tar(&[claims(900 << 20)]))]), why);
}

#[test]
fn a_limit_holds_for_all_layers_together() {
    let sandbox = project();
    told(&sandbox, &["snapshot"]);
    let layers: Vec<_> = (0..3).map(|n| Layer::plain(sparse(&format!("hole-{n}"), 500 << 20))).collect();
    Layout::with(sandbox.beside("large"), &layers);
    let add = |limit: &str| sandbox.pv(&["env", "add", &beside(&sandbox, "large"), "--no-edit", "--limit", limit]);
    let refused = add("1");
    assert!(refused.contains("entry `hole-2`"), "{refused}");
    assert!(refused.contains("is refused: the image unpacks to more than 1073741824 bytes\nhint: nothing of it was taken; `--limit` allows more"), "{refused}");
    assert!(!sandbox.exists(".pipeline/environments"));
}

#[test]
fn what_is_no_layer_is_said_to_be_none() {
    let none = "layer `` cannot be unpacked - the header behind it is damaged";
    assert_eq!(of_layers(&[Layer::plain(vec![b'x'; 2000])]), none);
    let told = of_layers(&[Layer { stored: gzip(b"abc")[..15].to_vec(), unpacked: Vec::new() }]);
    assert!(told.starts_with("layer `` cannot be unpacked"), "{told}");
}

/// Changes a blob of a good image, and returns what is said of it.
fn tampered(change: impl Fn(&Layout, &Value)) -> String {
    let sandbox = project();
    told(&sandbox, &["snapshot"]);
    let layers = [Layer::of(&[file("first", "1"), file("last", "2")])];
    let layout = Layout::empty(sandbox.beside("bad"));
    let manifest = layout.manifest(&layers, &config(&layers));
    layout.point(&[("latest", &manifest)]);
    change(&layout, &manifest);
    refusal(&sandbox, "bad").lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
}

#[test]
fn what_has_another_digest_or_size_than_declared_is_refused() {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let layer = |manifest: &Value| text(&manifest["layers"][0]["digest"]);
    let other_byte = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        // In the content of the last file, which no checksum of the archive covers.
        let at = bytes.len() - 1024 - 512;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let told = tampered(|layout, manifest| other_byte(&layout.blob(&layer(manifest))));
    assert!(told.contains("has the digest `sha256:") && told.starts_with("error: layer `sha256:"), "{told}");

    let told = tampered(|layout, manifest| {
        let path = layout.blob(&layer(manifest));
        fs::write(&path, [fs::read(&path).unwrap(), vec![0; 10 << 10]].concat()).unwrap();
    });
    assert!(told.contains("is longer than the 3072 bytes that were declared"), "{told}");

    let told = tampered(|layout, manifest| {
        let path = layout.blob(&layer(manifest));
        fs::write(&path, &fs::read(&path).unwrap()[..2048]).unwrap();
    });
    assert!(told.contains("is shorter than the 3072 bytes that were declared"), "{told}");

    let told = tampered(|layout, manifest| {
        let path = layout.blob(&text(&manifest["config"]["digest"]));
        let changed = fs::read_to_string(&path).unwrap().replace("1000:1000", "1000:0000");
        fs::write(&path, changed).unwrap();
    });
    assert!(told.starts_with("error: the configuration has the digest `sha256:"), "{told}");

    let told = tampered(|layout, manifest| {
        let bytes = manifest.to_string();
        let path = layout.blob(&super::make::digest(bytes.as_bytes()));
        fs::write(path, bytes + " ").unwrap();
    });
    assert!(told.starts_with("error: the manifest has the digest `sha256:"), "{told}");
}

/// A layer that is said to be huge would be allowed to become huge.
#[test]
fn a_bomb_that_claims_to_be_large_is_refused_too() {
    let told = tampered(|layout, _| {
        let bomb = sparse("bomb", 10 << 30);
        let layers = [Layer { stored: gzip(&bomb), unpacked: bomb }];
        let mut manifest = layout.manifest(&layers, &config(&layers));
        manifest["layers"][0]["size"] = (1_u64 << 40).into();
        layout.point(&[("latest", &manifest)]);
    });
    assert!(told.contains("is shorter than the 1099511627776 bytes that were declared"), "{told}");
}

#[test]
fn a_layer_that_unpacks_to_something_else_than_the_configuration_says_is_refused() {
    let told = tampered(|layout, _| {
        let layers = [Layer::of(&[file("other", "1")])];
        let other = [Layer::of(&[file("another", "1")])];
        layout.point(&[("latest", &layout.manifest(&layers, &config(&other)))]);
    });
    assert!(told.contains("`, unpacked, has the digest `sha256:"), "{told}");
    let told = tampered(|layout, _| {
        let layers = [Layer::of(&[file("other", "1")])];
        layout.point(&[("latest", &layout.manifest(&layers, &config(&[])))]);
    });
    assert!(
        told.contains("the configuration cannot be understood: it has 0 digests of layers, the manifest 1"),
        "{told}"
    );
}

#[test]
fn digests_that_are_none_never_become_paths() {
    let told = tampered(|layout, manifest| {
        let mut manifest = manifest.clone();
        manifest["layers"][0]["digest"] = "sha256:../../../../a.txt".into();
        layout.point(&[("latest", &manifest)]);
    });
    assert_eq!(told, "error: digest `sha256:../../../../` cannot be understood: it is not SHA-256");
}

#[test]
fn an_image_for_other_machines_is_refused() {
    let told = tampered(|layout, manifest| {
        let of = |architecture: &str| {
            let digest = super::make::digest(manifest.to_string().as_bytes());
            serde_json::json!({"digest": digest, "size": manifest.to_string().len(),
                "platform": {"os": "linux", "architecture": architecture}})
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [of("s390x"), of("riscv64")]});
        layout.point(&[("latest", &index)]);
    });
    assert!(told.contains(", only for linux/riscv64, linux/s390x"), "{told}");
}
