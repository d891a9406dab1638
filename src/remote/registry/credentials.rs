//! Who the user is to a registry, as other programs for containers were told.
//!
//! What is found is neither printed nor stored. A file that cannot be read or understood counts as none.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::super::surroundings::{Surroundings, read_text};
use crate::environment::image::Repository;

/// How the files call the registry of Docker.
const DOCKER_KEYS: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

/// A name and a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Both, as they are sent.
    encoded: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
}

impl Credentials {
    /// Returns those for a registry, from the first file that has some.
    pub(super) fn find(repository: &Repository, surroundings: &Surroundings<'_>) -> Option<Self> {
        places(surroundings).into_iter().find_map(|place| {
            let file: File = serde_json::from_str(&read_text(&place)?).ok()?;
            file.find(repository)
        })
    }

    /// Returns what is sent to say who the user is.
    pub(super) fn as_basic(&self) -> String {
        format!("Basic {}", self.encoded)
    }
}

/// Returns the files in which credentials may be, the first to be asked first.
fn places(surroundings: &Surroundings<'_>) -> Vec<PathBuf> {
    let named = surroundings.first(&["REGISTRY_AUTH_FILE"]).map(PathBuf::from);
    let below = |variable: &str, path: &str| Some(PathBuf::from(surroundings.first(&[variable])?).join(path));
    let at_home = |path: &str| Some(surroundings.home.as_ref()?.join(path));
    let places = [
        named,
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        below("XDG_CONFIG_HOME", "containers/auth.json").or_else(|| at_home(".config/containers/auth.json")),
        below("DOCKER_CONFIG", "config.json").or_else(|| at_home(".docker/config.json")),
    ];
    places.into_iter().flatten().collect()
}

impl File {
    fn find(&self, repository: &Repository) -> Option<Credentials> {
        let keys = keys(repository);
        for key in &keys {
            let is_it = |(name, _): &(&String, &Auth)| name.as_str() == key || host_of(name) == key;
            let auth = self.auths.iter().find(is_it).and_then(|(_, auth)| auth.auth.clone());
            if let Some(encoded) = auth.filter(|auth| is_base64(auth)) {
                return Some(Credentials { encoded });
            }
        }
        let helper = keys.iter().find_map(|key| self.cred_helpers.get(key));
        let helper = helper.or_else(|| self.creds_store.as_ref().filter(|store| !store.is_empty()))?;
        let server = if repository.host == "docker.io" { DOCKER_KEYS[0] } else { &repository.host };
        ask_helper(helper, server)
    }
}

/// Returns what a repository may be called in a file: the most exact name first, then its host.
fn keys(repository: &Repository) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = format!("{}/{}", repository.host, repository.path);
    loop {
        keys.push(path.clone());
        match path.rfind('/') {
            Some(slash) => path.truncate(slash),
            None => break,
        }
    }
    if repository.host == "docker.io" {
        keys.extend(DOCKER_KEYS.map(str::to_owned));
    }
    keys
}

/// Returns the host of an address with a scheme; other names are none.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    rest.and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Asks the program that keeps the user's secrets.
fn ask_helper(helper: &str, server: &str) -> Option<Credentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    if helper.contains('/') {
        return None;
    }
    #[expect(clippy::disallowed_methods, reason = "whoever keeps the user's secrets is a program")]
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut input = child.stdin.take()?;
    // One that wants to know nothing may have ended already.
    let _ = input.write_all(server.as_bytes());
    drop(input);
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    let Answer { username, secret } = serde_json::from_slice(&output.stdout).ok()?;
    // What goes by this name is no password, but something to get one for.
    let is_password = username != "<token>" && !username.contains(':');
    is_password.then(|| Credentials { encoded: base64(format!("{username}:{secret}").as_bytes()) })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * index) & 63) as usize];
            out.push(if index <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, image: &str) -> Option<String> {
        let file: File = serde_json::from_str(text).unwrap();
        file.find(&Repository::read(image).unwrap()).map(|credentials| credentials.encoded)
    }

    #[test]
    fn the_most_exact_name_counts_and_no_other_host_gets_anything() {
        let text = r#"{"auths": {"quay.io": {"auth": "aG9zdA=="}, "quay.io/some": {"auth": "c29tZQ=="},
            "https://index.docker.io/v1/": {"auth": "ZG9ja2Vy"}, "https://reg.example.org/v2/": {"auth": "cmVn"},
            "bad.example.org": {"auth": "a\r\nb: c"}}}"#;
        assert_eq!(find(text, "quay.io/some/image").as_deref(), Some("c29tZQ=="));
        assert_eq!(find(text, "quay.io/other/image").as_deref(), Some("aG9zdA=="));
        assert_eq!(find(text, "debian").as_deref(), Some("ZG9ja2Vy"));
        assert_eq!(find(text, "reg.example.org/a").as_deref(), Some("cmVn"));
        for image in ["quay.io.example.org/a", "example.org/a", "bad.example.org/a"] {
            assert_eq!(find(text, image), None, "{image}");
        }
    }

    #[test]
    fn files_are_asked_in_the_order_of_the_programs_for_containers() {
        let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1".to_owned());
        let home = Some(PathBuf::from("/home/ada"));
        let found = places(&Surroundings { variable: &variable, home, patience: crate::remote::Patience::default() });
        let texts: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        let at_home = ["/home/ada/.config/containers/auth.json", "/home/ada/.docker/config.json"];
        assert_eq!(texts, ["/run/user/1/containers/auth.json", at_home[0], at_home[1]]);
    }

    #[test]
    fn name_and_secret_are_encoded_as_in_the_files() {
        assert_eq!(
            ["", "a", "ab", "abc", "ada:s3cret"].map(|text| base64(text.as_bytes())),
            ["", "YQ==", "YWI=", "YWJj", "YWRhOnMzY3JldA=="]
        );
    }
}
