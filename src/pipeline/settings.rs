//! The settings of a project, `.pipeline/config.yaml`: what its pipelines share.

mod edit;

use std::collections::BTreeMap;

use crate::path::Pattern;
use crate::yaml::{self, Node, Value};

use super::field::{Reader, items, step_name_fault, subject};
use super::problem::{DefinitionError, Finding, quoted};
use super::reader::unknown_key;

pub use edit::{with_remote, without_remote};

/// Where the settings lie in a project.
pub const SETTINGS: &str = ".pipeline/config.yaml";
/// The name that no pipeline can have, because it would lie there.
pub const SETTINGS_NAME: &str = "config";

const KEYS: [&str; 3] = ["observe", "remote", "remotes"];
const REMOTE_KEYS: [&str; 2] = ["default", "trust"];
const OBSERVE_KEYS: [&str; 2] = ["environment", "inputs"];
const ELSEWHERE: [(&str, &str); 4] =
    [("ignore", "environment"), ("noise", "environment"), ("exclude", "environment"), ("include", "inputs")];

/// The settings of a project.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// What an observed path outside the project is.
    pub observe: Observe,
    /// The address of each remote, by its name.
    pub remotes: BTreeMap<String, String>,
    /// How remotes are used.
    pub remote: RemoteUse,
}

/// How remotes are used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RemoteUse {
    /// The one that is meant if none is named.
    pub default: Option<String>,
    /// Whose results count, if that is said.
    pub trust: Option<Trust>,
}

/// Whose results of steps are used instead of executing them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Everybody's.
    All,
    /// Only those of this user.
    None,
    /// Those of this user and of these, each as `Name <address>` or the address alone.
    Listed(Vec<String>),
}

impl Trust {
    /// Returns whether the results of `who`, as a record names its author, count for somebody else.
    pub fn counts(&self, who: &str) -> bool {
        let address = who.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
        match self {
            Self::All => true,
            Self::None => false,
            Self::Listed(listed) => listed.iter().any(|listed| listed == who || Some(listed.as_str()) == address),
        }
    }
}

/// What an observed path outside the project is; see `docs/audit.md`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observe {
    /// Parts of the environment.
    pub environment: Vec<Pattern>,
    /// Inputs.
    pub inputs: Vec<Pattern>,
}

/// Returns the settings in `text`, shown as `file` in errors. A text without any value has none.
///
/// # Errors
///
/// [`DefinitionError`] with everything that is wrong: no YAML, an unknown key, a value of another kind, no pattern.
pub fn read_settings(text: &[u8], file: &str) -> Result<Settings, DefinitionError> {
    let root = yaml::read_spanned(text).map_err(|error| DefinitionError::from_yaml(file, text, error))?;
    // The reader accepts UTF-8 only, so nothing is lost.
    let text = String::from_utf8_lossy(text);
    let mut reader = Reader::new(&text);
    let settings = settings(&mut reader, &root);
    if reader.findings.is_empty() { Ok(settings) } else { Err(DefinitionError::new(file, &text, reader.findings)) }
}

fn settings(reader: &mut Reader<'_>, root: &Node) -> Settings {
    let mut settings = Settings::default();
    if root.value == Value::Null {
        return settings;
    }
    let expected = "a map with the keys `observe`, `remote` and `remotes`";
    for (key, node) in reader.map(root, "the settings", expected).unwrap_or_default() {
        if !KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, "the settings", "no setting has such a name", &KEYS, &[]);
        } else if reader.is_given(key, node, &format!("`{}`", key.text)) {
            match key.text.as_str() {
                "observe" => settings.observe = observe(reader, node),
                "remote" => settings.remote = remote(reader, node),
                _ => settings.remotes = remotes(reader, node),
            }
        }
    }
    settings
}

fn remotes(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut remotes = BTreeMap::new();
    for (key, node) in reader.map(node, "`remotes`", "a map of names and addresses").unwrap_or_default() {
        if let Some(fault) = step_name_fault(&key.text) {
            let finding = Finding::new(format_args!("{} is no name for a remote", quoted(&key.text)));
            reader.note(finding.at(&key.span, fault));
        } else if let Some(address) = reader.text(node, &format!("the address of `{}`", key.text), "text") {
            remotes.insert(key.text.clone(), address);
        }
    }
    remotes
}

fn remote(reader: &mut Reader<'_>, node: &Node) -> RemoteUse {
    let mut remote = RemoteUse::default();
    for (key, node) in reader.map(node, "`remote`", "a map with the keys `default` and `trust`").unwrap_or_default() {
        let what = format!("`{}` of `remote`", key.text);
        if !REMOTE_KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, "`remote`", "nothing here has such a key", &REMOTE_KEYS, &[]);
        } else if reader.is_given(key, node, &what) {
            match key.text.as_str() {
                "default" => remote.default = reader.text(node, &what, "a name"),
                _ => remote.trust = Some(trust(reader, node, &what)),
            }
        }
    }
    remote
}

fn trust(reader: &mut Reader<'_>, node: &Node, what: &str) -> Trust {
    let expected = "`all`, `none` or a list of people";
    match &node.value {
        Value::Text(word) if word == "all" => Trust::All,
        Value::Text(word) if word == "none" => Trust::None,
        Value::Text(word) if !word.contains('@') => {
            reader.wrong(node, what, expected);
            Trust::None
        }
        _ => {
            let of = subject(node, what);
            Trust::Listed(items(node).iter().filter_map(|item| reader.text(item, &of, expected)).collect())
        }
    }
}

fn observe(reader: &mut Reader<'_>, node: &Node) -> Observe {
    let mut observe = Observe::default();
    let expected = "a map with the keys `environment` and `inputs`";
    for (key, node) in reader.map(node, "`observe`", expected).unwrap_or_default() {
        let what = format!("`{}` of `observe`", key.text);
        if !OBSERVE_KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, "`observe`", "nothing here has such a key", &OBSERVE_KEYS, &ELSEWHERE);
        } else if reader.is_given(key, node, &what) {
            let patterns = patterns(reader, node, &what);
            *(if key.text == "inputs" { &mut observe.inputs } else { &mut observe.environment }) = patterns;
        }
    }
    if let Some(twice) = observe.environment.iter().find(|pattern| observe.inputs.contains(pattern)) {
        let finding = Finding::new(format_args!("{} is both environment and input", quoted(&twice.to_string())));
        reader.note(finding.at(&node.span, "listed under both keys here").hint("keep it under one of them"));
    }
    observe
}

fn patterns(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<Pattern> {
    let item_of = subject(node, what);
    let mut patterns = Vec::new();
    for item in items(node) {
        let Some(text) = reader.text(item, &item_of, "text") else { continue };
        match Pattern::new(&text) {
            Ok(pattern) => patterns.push(pattern),
            Err(fault) => {
                let finding = Finding::new(format_args!("{} in {what} is no pattern", quoted(&text)));
                reader
                    .note(finding.at(&item.span, fault).hint("such as `/data/shared`, `~/.cache/tool` or `**/*.lic`"));
            }
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_may_be_empty() {
        let read = |text: &str| read_settings(text.as_bytes(), SETTINGS).unwrap();
        assert_eq!(read("# nothing\n"), Settings::default());
        let observe = read("observe:\n  environment: [/opt/vendor, ~/.lic]\n  inputs: '**/*.lic'\n").observe;
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>();
        assert_eq!(
            (texts(&observe.environment), texts(&observe.inputs)),
            (vec!["/opt/vendor".to_owned(), "~/.lic".to_owned()], vec!["**/*.lic".to_owned()])
        );
    }

    #[test]
    fn remotes_and_their_use_are_read() {
        let read = |text: &str| read_settings(text.as_bytes(), SETTINGS).unwrap();
        let settings = read(
            "remotes: {lab: ssh://lab/pv, cloud: 's3://bucket/pv'}\nremote: {default: lab, trust: [ada@example.org]}\n",
        );
        assert_eq!(settings.remotes.keys().collect::<Vec<_>>(), ["cloud", "lab"]);
        assert_eq!(settings.remote.default.as_deref(), Some("lab"));
        let trust = settings.remote.trust.unwrap();
        assert!(trust.counts("Ada <ada@example.org>") && !trust.counts("Bob <bob@example.org>"));
        let trust = |text: &str| read(&format!("remote: {{trust: {text}}}")).remote.trust.unwrap();
        assert_eq!((trust("all"), trust("none")), (Trust::All, Trust::None));
        let complaint = |text: &str| {
            let error = read_settings(text.as_bytes(), SETTINGS).unwrap_err().render(false);
            error.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(complaint("remotes: {-x: /a}"), "error: `-x` is no name for a remote");
        assert_eq!(complaint("remotes: {x: 3}"), "error: the address of `x` must be text, found the number `3`");
        assert_eq!(
            complaint("remote: {trust: some}"),
            "error: `trust` of `remote` must be `all`, `none` or a list of people, found text"
        );
    }

    #[test]
    fn every_fault_of_the_settings_is_told_with_its_place() {
        let complaint = |text: &str| read_settings(text.as_bytes(), SETTINGS).unwrap_err().render(false);
        insta::assert_snapshot!(complaint("observe:\n  ignore: [/x]\n  inputs: [x/y, /a/../b]\nservers: {}\n"), @r"
        error: unknown key `ignore` in `observe`
         --> .pipeline/config.yaml:2:3
          |
        2 |   ignore: [/x]
          |   ^^^^^^ nothing here has such a key
          |
        help: it is called `environment` here

        error: `x/y` in `inputs` of `observe` is no pattern
         --> .pipeline/config.yaml:3:12
          |
        3 |   inputs: [x/y, /a/../b]
          |            ^^^ a pattern begins with `/`, `~/` or `**/`
          |
        help: such as `/data/shared`, `~/.cache/tool` or `**/*.lic`

        error: `/a/../b` in `inputs` of `observe` is no pattern
         --> .pipeline/config.yaml:3:17
          |
        3 |   inputs: [x/y, /a/../b]
          |                 ^^^^^^^ a pattern must not contain `..`
          |
        help: such as `/data/shared`, `~/.cache/tool` or `**/*.lic`

        error: unknown key `servers` in the settings
         --> .pipeline/config.yaml:4:1
          |
        4 | servers: {}
          | ^^^^^^^ no setting has such a name
          |
        help: the keys are `observe`, `remote`, `remotes`
        ");
        let first = |text: &str| complaint(text).lines().next().unwrap_or_default().to_owned();
        let twice = "observe: {inputs: [/x], environment: [/x]}";
        assert_eq!(first(twice), "error: `/x` is both environment and input");
        assert_eq!(
            first("[]"),
            "error: the settings must be a map with the keys `observe`, `remote` and `remotes`, found a list"
        );
        let number = "observe: {inputs: 3}";
        assert_eq!(first(number), "error: `inputs` of `observe` must be text, found the number `3`");
    }
}
