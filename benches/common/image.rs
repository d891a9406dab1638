//! An image as files: an OCI layout with one compressed layer.

use std::path::{Path, PathBuf};

use pv::environment::image::ImageDigest;

use super::scratch::Scratch;

/// Makes a layout at `to` of the files below `from`. Returns where its one layer lies.
pub(crate) fn make_layout(scratch: &Scratch, from: &Path, to: &Path) -> PathBuf {
    let blobs = to.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let tar = to.join("layer");
    let text = tar.to_str().expect("the target directory has a name that is text");
    scratch.run(from, "tar", &["--sort=name", "-cf", text, "."]);
    let diff_id = digest(&std::fs::read(&tar).unwrap());
    scratch.run(to, "gzip", &["-n", text]);
    let keep = |bytes: &[u8]| {
        let digest = digest(bytes);
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        format!("\"digest\": \"sha256:{digest}\", \"size\": {}", bytes.len())
    };
    let packed = to.join("layer.gz");
    let bytes = std::fs::read(&packed).unwrap();
    let layer = blobs.join(digest(&bytes));
    let described = keep(&bytes);
    drop(bytes);
    std::fs::remove_file(packed).unwrap();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = keep(
        format!(
            "{{\"architecture\": \"{machine}\", \"os\": \"linux\", \"config\": {{\"Env\": [\"PATH=/bin\"]}}, \
             \"rootfs\": {{\"type\": \"layers\", \"diff_ids\": [\"sha256:{diff_id}\"]}}}}"
        )
        .as_bytes(),
    );
    let kind = "\"mediaType\": \"application/vnd.oci.image";
    let manifest = keep(
        format!(
            "{{\"schemaVersion\": 2, {kind}.manifest.v1+json\", \"config\": {{{kind}.config.v1+json\", {config}}}, \
             \"layers\": [{{{kind}.layer.v1.tar+gzip\", {described}}}]}}"
        )
        .as_bytes(),
    );
    let index = format!("{{\"schemaVersion\": 2, \"manifests\": [{{{kind}.manifest.v1+json\", {manifest}}}]}}");
    std::fs::write(to.join("index.json"), index).unwrap();
    std::fs::write(to.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}").unwrap();
    layer
}

fn digest(bytes: &[u8]) -> String {
    ImageDigest::of(bytes).hex()
}
