//! What an image says of itself: manifest, index and configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::digest::ImageDigest;
use crate::object::PinConfig;

/// No registry takes a manifest that is larger.
pub(super) const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// More than any tool writes into a configuration.
pub(super) const CONFIG_MAX_BYTES: u64 = 16 << 20;
const LAYERS_MAX: usize = 1024;
/// The label under which a layout says what an image is called.
pub(super) const NAME_LABEL: &str = "org.opencontainers.image.ref.name";

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// What is understood of what a registry can give.
pub const MANIFEST_TYPES: [&str; 4] = [
    MANIFEST_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Something that an image consists of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest, as text: what is not SHA-256 is refused when it is fetched.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// For which machines it is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A kind of machine, in the words of images.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// What a manifest turned out to be.
pub(super) enum Told {
    /// An image.
    Manifest(Manifest),
    /// Several, for different machines or of different names.
    Index(Vec<Descriptor>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The configuration of an image, as far as it matters.
#[derive(Deserialize, Default)]
pub(super) struct Config {
    #[serde(default)]
    config: Option<Runs>,
    #[serde(default)]
    pub(super) rootfs: RootFs,
}

#[derive(Deserialize, Default)]
struct Runs {
    #[serde(rename = "Env", default)]
    env: Option<Vec<String>>,
    #[serde(rename = "User", default)]
    user: Option<String>,
    #[serde(rename = "WorkingDir", default)]
    workdir: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct RootFs {
    /// The digest of each layer, unpacked.
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

impl Descriptor {
    /// Returns its digest.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotUnderstood`] if it is not SHA-256.
    pub fn digest(&self) -> Result<ImageDigest, ImageError> {
        self.digest.parse().map_err(|_| ImageError::NotUnderstood {
            what: format!("digest `{}`", shortened(&self.digest)),
            why: "it is not SHA-256".to_owned(),
        })
    }

    pub(super) fn of(media_type: &str, digest: ImageDigest, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), digest.to_string());
        Self { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

impl Platform {
    /// Returns that of this machine.
    pub(super) fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Returns system and processor.
    pub(super) fn into_parts(self) -> (String, String) {
        (self.os, self.architecture)
    }

    pub(super) fn name(&self) -> String {
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }

    /// Returns whether what is made for `self` runs on `machine`.
    fn suits(&self, machine: &Self) -> bool {
        let variants: &[&str] = match machine.architecture.as_str() {
            "amd64" => &["", "v1"],
            "arm64" => &["", "v8"],
            _ => &[""],
        };
        self.os == machine.os
            && self.architecture == machine.architecture
            && variants.contains(&self.variant.as_deref().unwrap_or_default())
    }
}

/// Returns what `bytes` are.
pub(super) fn read(bytes: &[u8]) -> Result<Told, ImageError> {
    let not = |why: &str| ImageError::NotUnderstood { what: "the manifest".to_owned(), why: why.to_owned() };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| not("it is no JSON"))?;
    if value.get("manifests").is_some() {
        let index: Index = serde_json::from_value(value).map_err(|error| not(&error.to_string()))?;
        return Ok(Told::Index(index.manifests));
    }
    if value.get("fsLayers").is_some() {
        return Err(not("it is of the first schema, which names no configuration"));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| not(&error.to_string()))?;
    if manifest.layers.len() > LAYERS_MAX {
        return Err(not("it has too many layers"));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.media_type.contains("encrypted")) {
        return Err(not(&format!("layer `{}` is encrypted", shortened(&layer.digest))));
    }
    Ok(Told::Manifest(manifest))
}

/// Returns the image among several that is for this machine.
pub(super) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let machine = Platform::of_this_machine();
    let suits = |descriptor: &&Descriptor| descriptor.platform.as_ref().is_some_and(|there| there.suits(&machine));
    if let Some(found) = manifests.iter().find(suits) {
        return Ok(found);
    }
    match manifests {
        // An index of one image need not say for whom it is.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let mut found: Vec<_> =
                manifests.iter().filter_map(|each| each.platform.as_ref()).map(Platform::name).collect();
            // Statements about images are there as images for nobody.
            found.retain(|name| name != "unknown/unknown");
            found.sort();
            found.dedup();
            Err(ImageError::NoPlatform { wanted: machine.name(), found })
        }
    }
}

impl Config {
    /// Returns the configuration in these bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|error| ImageError::NotUnderstood { what: "the configuration".to_owned(), why: error.to_string() })
    }

    /// Returns what programs in the image are given.
    pub(super) fn to_pin(&self) -> PinConfig {
        let Some(runs) = &self.config else { return PinConfig::default() };
        let pairs = runs.env.iter().flatten().filter_map(|line| line.split_once('='));
        let env = pairs.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned()));
        PinConfig {
            env: env.collect(),
            user: runs.user.clone().unwrap_or_default(),
            workdir: runs.workdir.clone().unwrap_or_default(),
        }
    }
}

/// Returns the begin of a digest, or of what claims to be one.
pub(super) fn shortened(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Vec<Descriptor> {
        let one = |(number, (os, architecture, variant)): (usize, &(&str, &str, Option<&str>))| Descriptor {
            platform: Some(Platform {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: variant.map(str::to_owned),
            }),
            ..Descriptor::of(MANIFEST_TYPE, ImageDigest::of(&[u8::try_from(number).unwrap()]), 1)
        };
        platforms.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_image_for_this_machine_is_taken_and_no_other() {
        let own = Platform::of_this_machine().architecture;
        let all = index(&[("linux", "s390x", None), ("windows", &own, None), ("linux", &own, None)]);
        assert_eq!(choose(&all).unwrap(), &all[2]);
        let Err(ImageError::NoPlatform { found, .. }) =
            choose(&index(&[("linux", "s390x", None), ("unknown", "unknown", None)]))
        else {
            panic!("there is none for this machine")
        };
        assert_eq!(found, ["linux/s390x"]);
    }

    #[test]
    fn what_a_configuration_says_is_taken_over() {
        let text = br#"{"config":{"Env":["PATH=/bin","A=b=c","odd"],"User":"1000","WorkingDir":"/srv"},"rootfs":{"diff_ids":["x"]}}"#;
        let pin = Config::read(text).unwrap().to_pin();
        assert_eq!(
            pin.env.into_iter().collect::<Vec<_>>(),
            [("A", "b=c"), ("PATH", "/bin")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert_eq!((pin.user.as_str(), pin.workdir.as_str()), ("1000", "/srv"));
        assert_eq!(Config::read(b"{\"config\":null}").unwrap().to_pin(), PinConfig::default());
    }
}
