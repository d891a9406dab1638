//! Pins: what an image was when it was taken in, and how a snapshot names it.
//!
//! The digest of an image says nothing about the tree that it unpacks to. A
//! pin does, so whoever has the pin needs the image no more: the tree is in
//! the store like any other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DecodeError, Sized, TreeId, canonical_value, from_canonical};

/// What stands before the digits of every digest of an image.
const SHA256: &str = "sha256:";
const SHA256_DIGITS: usize = 64;

/// What an image unpacks to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The digest of its manifest, as `sha256:<64 hex digits>`.
    pub image: String,
    /// Its files, all layers together.
    pub tree: TreeId,
    /// What programs in it are given, unless a step says otherwise.
    pub config: PinConfig,
    /// How many files and links are in it.
    pub files: u64,
    /// The bytes of the files.
    pub bytes: u64,
}

/// What programs in an image are given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinConfig {
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Who they run as: a name or number, perhaps with `:` and a group; empty for root.
    pub user: String,
    /// The directory that they start in; empty for `/`.
    pub workdir: String,
}

impl Pin {
    /// Returns how much is in the image.
    pub const fn sized(&self) -> Sized {
        Sized { files: self.files, bytes: self.bytes }
    }

    /// Returns the text of a pin file: canonical JSON and a line end.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = canonical_value(&self.to_value());
        text.push(b'\n');
        text
    }

    /// Returns the pin in the text of a pin file; `None` if it is none, or not of the image with this digest.
    ///
    /// White space does not count: Git may have changed the line end.
    pub fn of_text(text: &[u8], image: &str) -> Option<Self> {
        let pin: Self = serde_json::from_value(from_canonical(text).ok()?).ok()?;
        (pin.image == image && is_image_digest(image)).then_some(pin)
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a pin has text keys only")
    }
}

/// Returns whether `text` is the digest of an image: `sha256:` and 64 hex digits, none of them capital.
pub fn is_image_digest(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix(SHA256).is_some_and(|hex| hex.len() == SHA256_DIGITS && hex.bytes().all(is_digit))
}

/// Returns the bytes of the environment of a snapshot: what the definition says, and the pins of all images named in it.
///
/// Without a pin they are what the definition says alone, as they were before there were images.
pub fn encode_environment(environment: Value, pins: &[Pin]) -> Vec<u8> {
    if pins.is_empty() {
        return canonical_value(&environment);
    }
    let images: serde_json::Map<_, _> = pins.iter().map(|pin| (pin.image.clone(), pin.to_value())).collect();
    canonical_value(&json!({"environment": environment, "images": images}))
}

/// Returns the pins in the environment of a snapshot, by the digest of their image.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are no environment, or a pin in them is none.
pub fn pins_of_environment(bytes: &[u8]) -> Result<BTreeMap<String, Pin>, DecodeError> {
    let not = |what| DecodeError::NotCanonical(what);
    let value = from_canonical(bytes).map_err(|_| not("an environment is no JSON"))?;
    let Some(images) = value.get("images") else { return Ok(BTreeMap::new()) };
    let pins: BTreeMap<String, Pin> =
        serde_json::from_value(images.clone()).map_err(|_| not("the pin of an image is none"))?;
    let is_well = pins.iter().all(|(image, pin)| *image == pin.image && is_image_digest(image));
    if is_well { Ok(pins) } else { Err(not("a pin is of another image")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(digit: char) -> Pin {
        let env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned()), ("$X".to_owned(), "1".to_owned())]);
        let config = PinConfig { env, user: "1000:1000".to_owned(), workdir: "/srv".to_owned() };
        let image = format!("sha256:{}", digit.to_string().repeat(64));
        Pin { image, tree: TreeId::of(b"x"), config, files: 3, bytes: 10 }
    }

    #[test]
    fn a_pin_comes_back_from_its_text_and_is_that_of_one_image_only() {
        let (first, other) = (pin('a'), pin('b'));
        assert_eq!(Pin::of_text(&first.to_text(), &first.image), Some(first.clone()));
        assert_eq!(Pin::of_text(&first.to_text(), &other.image), None);
        let windows = String::from_utf8(first.to_text()).unwrap().replace('\n', "\r\n");
        assert_eq!(Pin::of_text(windows.as_bytes(), &first.image), Some(first.clone()));
        let more = String::from_utf8(first.to_text()).unwrap().replacen('{', "{\"new\":1,", 1);
        assert_eq!(Pin::of_text(more.as_bytes(), &first.image), None, "what is not understood is not left out");
    }

    #[test]
    fn without_images_an_environment_is_what_the_definition_says() {
        assert_eq!(encode_environment(json!("host"), &[]), b"\"host\"");
        assert_eq!(pins_of_environment(b"\"host\""), Ok(BTreeMap::new()));
    }

    #[test]
    fn an_environment_tells_the_pins_that_were_put_into_it() {
        let pins = [pin('b'), pin('a')];
        let bytes = encode_environment(json!({"image": "x"}), &pins);
        let told = pins_of_environment(&bytes).unwrap();
        assert_eq!(told.into_values().collect::<Vec<_>>(), [pin('a'), pin('b')]);
        let mixed = String::from_utf8(bytes).unwrap().replacen(&"a".repeat(64), &"c".repeat(64), 1);
        assert!(pins_of_environment(mixed.as_bytes()).is_err());
    }

    #[test]
    fn only_small_letters_make_a_digest() {
        assert!(is_image_digest(&pin('a').image));
        for text in [String::new(), "a".repeat(64), format!("sha256:{}", "A".repeat(64)), "sha256:ab".to_owned()] {
            assert!(!is_image_digest(&text), "{text}");
        }
    }
}
