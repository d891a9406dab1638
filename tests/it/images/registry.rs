//! Images in a real registry, put there by a real tool.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::make::{Layer, Layout, config, digest, file, program};
use super::{DEFINITION, beside, files_of, project, small_root, told};
use crate::cloud::servers::{self, Access, Server};
use crate::fault::needs;

/// Who may ask the registry of these tests that lets not everybody in, and the secret as the registry keeps it.
const USER: (&str, &str) = ("ada", "s3cret");
const SECRETS: &str = "ada:$2b$04$APfcdc6rt.fqCIzngXsY3.JZgZMDoMnNMtYd0Dn1PNNc/QyizO0MW\n";

/// A registry, and the tool that puts images there.
pub(super) struct Hub {
    pub(super) server: Server,
    skopeo: PathBuf,
}

impl Hub {
    pub(super) fn start(test: &str, access: Access<'_>) -> Option<Self> {
        let skopeo = needs(test, "the program skopeo", servers::program("skopeo"))?;
        Some(Self { server: servers::registry(test, access)?, skopeo })
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// Returns where the registry keeps its images.
    pub(super) fn storage(&self) -> PathBuf {
        self.server.directory.path().join("images")
    }

    /// Copies the image of a layout to the registry.
    pub(super) fn push(&self, layout: &Layout, name: &str) {
        self.copy(&format!("oci:{}:latest", layout.0.display()), name);
    }

    /// Copies an image to the registry.
    pub(super) fn copy(&self, from: &str, name: &str) {
        let mut command = Command::new(&self.skopeo);
        command.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]);
        command.args(["--dest-creds", &format!("{}:{}", USER.0, USER.1)]);
        command.arg(from).arg(format!("docker://{}/{name}", self.host()));
        let done = command.env("TMPDIR", self.server.directory.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_tag_becomes_a_digest_and_moving_it_changes_nothing() {
    let Some(hub) = Hub::start("a_tag_becomes_a_digest_and_moving_it_changes_nothing", Access::Everybody) else {
        return;
    };
    let sandbox = project();
    let (first, first_image) = Layout::with(sandbox.beside("first"), &[Layer::gzip(&small_root())]);
    let (second, second_image) = Layout::with(sandbox.beside("second"), &[Layer::gzip(&[program("bin/tool", "new")])]);
    hub.push(&first, "team/tools:v1");
    let name = format!("{}/team/tools", hub.host());
    let added = told(&sandbox, &["env", "add", &format!("{name}:v1")]);
    assert_eq!(added["image"], format!("{name}@{first_image}"));
    let definition = sandbox.read(".pipeline/pipeline.yaml");
    assert!(definition.contains(&format!("environment: {{image: \"{name}@{first_image}\"}}")), "{definition}");
    sandbox.commit("environment");
    let before = told(&sandbox, &["snapshot", "--tag", "v1"])["snapshot"].clone();

    hub.push(&second, "team/tools:v1");
    assert_eq!(told(&sandbox, &["snapshot"])["snapshot"], before);
    // By its digest the old one is still to be had; what the tag means now is another.
    let by_digest = told(&sandbox, &["env", "add", &format!("{name}:v1@{first_image}"), "--no-edit"]);
    assert_eq!(by_digest["environment"], added["environment"]);
    let moved = told(&sandbox, &["env", "add", &format!("{name}:v1"), "--step", "count"]);
    assert_eq!(moved["image"], format!("{name}@{second_image}"));
    let shown = told(&sandbox, &["env", "show"]);
    let images = [0, 1].map(|at| shown["environments"][at]["environment"]["image"]["digest"].clone());
    assert_eq!(images, [first_image, second_image].map(Value::from));
    assert_ne!(told(&sandbox, &["snapshot"])["snapshot"], before);
}

/// The registry stops and its disk is wiped: whoever has a remote has the environment.
#[test]
fn without_the_registry_a_clone_gets_the_environment_from_a_remote() {
    let Some(hub) = Hub::start("without_the_registry_a_clone_gets_the_environment_from_a_remote", Access::Everybody)
    else {
        return;
    };
    let sandbox = project();
    let noise: Vec<u8> = (0..2_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut root = small_root();
    root.push(file("lib/large", noise));
    let (layout, _) = Layout::with(sandbox.beside("layout"), &[Layer::zstd(&root), Layer::gzip(&[file("x", "1")])]);
    hub.push(&layout, "tools:1");
    let added = told(&sandbox, &["env", "add", &format!("{}/tools:1", hub.host())]);
    drop(hub);
    fs::remove_dir_all(&layout.0).unwrap();
    sandbox.commit("environment");
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    let files = files_of(&sandbox, "v1");
    let exported = fs::read(sandbox.beside("files-of-v1.tar")).unwrap();
    let remote = beside(&sandbox, "remote");
    told(&sandbox, &["remote", "add", "share", &remote]);
    told(&sandbox, &["remote", "check"]);
    let of_images = || {
        let (answer, _) = sandbox.json(&["check"]);
        let checks = answer["checks"].as_array().unwrap().clone();
        let check = checks.into_iter().find(|check| check["check"] == "images").unwrap_or_else(|| panic!("{answer}"));
        check["found"].as_str().unwrap().to_owned()
    };
    sandbox.commit("remote");
    assert_eq!(of_images(), "4 of 4 files not in remote `share`");
    told(&sandbox, &["push", "HEAD"]);
    told(&sandbox, &["push", "v1"]);
    assert_eq!(of_images(), "all 4 files in remote `share`");

    let clone = sandbox.beside("clone");
    sandbox.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    sandbox.git_in(&clone, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    fs::remove_dir_all(sandbox.path(".git/pv")).unwrap();
    let (pulled, code) = sandbox.json_in(&clone, &["pull", "v1"]);
    assert_eq!((code, &pulled["missing"]), (0, &json!(0)), "{pulled}");
    let again = sandbox.beside("again.tar");
    let (answer, code) = sandbox.json_in(&clone, &["env", "export", "v1", again.to_str().unwrap(), "--offline"]);
    assert_eq!(code, 0, "{answer}");
    assert!(fs::read(&again).unwrap() == exported, "the same bytes");
    assert!(files.contains(&"-rw-r--r-- lib/large".to_owned()), "{files:?}");
    let (list, _) = sandbox.json_in(&clone, &["env", "list"]);
    assert_eq!(list["environments"][0]["environment"], added["environment"]);
    assert_eq!(list["environments"][0]["here"], true);
    let (answer, code) = sandbox.json_in(&clone, &["fsck"]);
    assert_eq!(code, 0, "{answer}");
}

/// A file of an image that is in no remote and not here belongs to what is missing of a snapshot.
#[test]
fn a_pull_says_what_of_an_environment_is_nowhere() {
    let sandbox = project();
    Layout::with(sandbox.beside("layout"), &[Layer::gzip(&small_root())]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "layout")]);
    sandbox.commit("environment");
    // The commit determines the snapshot, and tells where the files of its environment begin, but not what they are.
    let clone = sandbox.beside("clone");
    sandbox.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    let (answer, _) = sandbox.json_in(&clone, &["remote", "add", "share", &beside(&sandbox, "remote")]);
    assert_eq!(answer["name"], "share");
    let (answer, code) = sandbox.json_in(&clone, &["push", "HEAD"]);
    assert_eq!((code, answer["missing"].as_u64()), (0, Some(1)), "{answer}");
}

#[test]
fn an_index_leads_to_the_image_for_this_machine() {
    let Some(hub) = Hub::start("an_index_leads_to_the_image_for_this_machine", Access::Everybody) else { return };
    let sandbox = project();
    let own = [Layer::gzip(&small_root())];
    let layout = Layout::empty(sandbox.beside("index"));
    let own = layout.manifest(&own, &config(&own));
    let other = [Layer::gzip(&[file("other", "1")])];
    let mut of_other = config(&other);
    of_other["architecture"] = "s390x".into();
    let other = layout.manifest(&other, &of_other);
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    layout.point(&[("own", &own), ("other", &other)]);
    let described = |manifest: &Value, architecture: &str| {
        let bytes = manifest.to_string();
        json!({"mediaType": manifest["mediaType"], "digest": digest(bytes.as_bytes()), "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described(&other, "s390x"), described(&own, machine)]});
    let index = layout.point(&[("latest", &index)]);
    let text = fs::read_to_string(layout.0.join("index.json")).unwrap();
    fs::write(layout.0.join("index.json"), text.replace("image.manifest", "image.index")).unwrap();
    let mut command = Command::new(&hub.skopeo);
    command.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
    command.arg(format!("oci:{}:latest", layout.0.display())).arg(format!("docker://{}/both:1", hub.host()));
    let done = command.env("TMPDIR", hub.server.directory.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for reference in [format!("{}/both:1", hub.host()), format!("{}/both@{index}", hub.host())] {
        let added = told(&sandbox, &["env", "add", &reference, "--no-edit"]);
        assert_eq!(added["image"], format!("{}/both@{}", hub.host(), digest(own.to_string().as_bytes())));
    }
}

#[test]
fn a_registry_that_wants_to_know_who_asks_is_told() {
    let Some(hub) = Hub::start("a_registry_that_wants_to_know_who_asks_is_told", Access::Known(SECRETS)) else {
        return;
    };
    let sandbox = project();
    let (layout, _) = Layout::with(sandbox.beside("layout"), &[Layer::gzip(&small_root())]);
    hub.push(&layout, "closed:1");
    let image = format!("{}/closed:1", hub.host());
    let refused = sandbox.pv(&["env", "add", &image]);
    assert!(refused.contains("because: the registry answered 401, Unauthorized\nhint: `podman login`"), "{refused}");
    // As `podman login` writes it: name and secret in base64.
    let secret = |encoded: &str| json!({"auths": {hub.host(): {"auth": encoded}}}).to_string();
    let place = sandbox.beside("home/.config/containers/auth.json");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, secret("YWRhOndyb25n")).unwrap();
    let refused = sandbox.pv(&["env", "add", &image]);
    assert!(refused.contains("because: the registry answered 401, Unauthorized"), "{refused}");
    assert!(!refused.contains("YWRhOndyb25n") && !refused.contains("wrong"), "{refused}");
    fs::write(&place, secret("YWRhOnMzY3JldA==")).unwrap();
    told(&sandbox, &["env", "add", &image]);
    fs::remove_file(&place).unwrap();
    // A program that keeps secrets is asked as Docker asks it.
    let helper = sandbox.beside("bin/docker-credential-kept");
    fs::create_dir_all(helper.parent().unwrap()).unwrap();
    let script = format!(
        "#!/bin/sh\nread -r host\n[ \"$1 $host\" = 'get {}' ] && echo '{{\"Username\": \"ada\", \"Secret\": \"s3cret\"}}'\n",
        hub.host()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(sandbox.beside("home/.docker")).unwrap();
    fs::write(sandbox.beside("home/.docker/config.json"), json!({"credHelpers": {hub.host(): "kept"}}).to_string())
        .unwrap();
    let path = std::env::join_paths(
        [helper.parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let output = sandbox.pv_command(&["env", "add", &image]).env("PATH", path.unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", sandbox.tell(&output));
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let Some(hub) = Hub::start("what_a_registry_does_not_have_is_named", Access::Everybody) else { return };
    let sandbox = project();
    let told = sandbox.pv(&["env", "add", &format!("{}/nothing:1", hub.host())]);
    let expected = format!(
        "--- stderr\nerror: cannot fetch `1` from `{}/nothing`\n  because: the registry answered 404, Not Found\n\
         hint: look at its name and tag; some registries also say so if you may not see it\n--- exit 5\n",
        hub.host()
    );
    assert_eq!(told, expected);
    assert_eq!(sandbox.read(".pipeline/pipeline.yaml"), DEFINITION);
}

/// What is written for other programs is tried with one.
#[test]
fn an_exported_image_is_read_by_other_programs() {
    let test = "an_exported_image_is_read_by_other_programs";
    let Some(skopeo) = needs(test, "the program skopeo", servers::program("skopeo")) else { return };
    let sandbox = project();
    Layout::with(sandbox.beside("tools"), &[Layer::gzip(&small_root())]);
    told(&sandbox, &["env", "add", &beside(&sandbox, "tools")]);
    told(&sandbox, &["snapshot", "--tag", "v1"]);
    let archive = sandbox.beside("exported.tar");
    let exported = told(&sandbox, &["env", "export", "v1", archive.to_str().unwrap()]);
    let inspect = |what: &str| -> Value {
        let mut command = Command::new(&skopeo);
        command.arg("inspect").arg(format!("{what}:{}", archive.display()));
        let done = command.env("TMPDIR", sandbox.beside("home")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let as_layout = inspect("oci-archive");
    assert_eq!(as_layout["Digest"], exported["image"]);
    assert_eq!(as_layout["Env"], json!(["KIND=image", "PATH=/usr/bin:/bin"]));
    // The way of docker, which unpacks the layer to see what is in it.
    let as_saved = inspect("docker-archive");
    assert_eq!(as_saved["Layers"].as_array().unwrap().len(), 1);
    let copied = Layout::empty(sandbox.beside("copied"));
    let mut command = Command::new(&skopeo);
    command.args(["--insecure-policy", "copy", "--quiet"]).arg(format!("docker-archive:{}", archive.display()));
    let done = command.arg(format!("oci:{}:x", copied.0.display())).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let again = told(&sandbox, &["env", "add", &format!("oci:{}:x", copied.0.display()), "--no-edit"]);
    assert_eq!(again["new_bytes"], 0, "{again}");
}
