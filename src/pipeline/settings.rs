//! The settings of a project, `.pipeline/config.yaml`: what its pipelines share.

use crate::path::Pattern;
use crate::yaml::{self, Node, Value};

use super::field::{Reader, items, subject};
use super::problem::{DefinitionError, Finding, quoted};
use super::reader::unknown_key;

/// Where the settings lie in a project.
pub const SETTINGS: &str = ".pipeline/config.yaml";
/// The name that no pipeline can have, because it would lie there.
pub const SETTINGS_NAME: &str = "config";

const KEYS: [&str; 1] = ["observe"];
const OBSERVE_KEYS: [&str; 2] = ["environment", "inputs"];
const ELSEWHERE: [(&str, &str); 4] =
    [("ignore", "environment"), ("noise", "environment"), ("exclude", "environment"), ("include", "inputs")];

/// The settings of a project.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// What an observed path outside the project is.
    pub observe: Observe,
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
    for (key, node) in reader.map(root, "the settings", "a map with the key `observe`").unwrap_or_default() {
        if key.text == "observe" {
            if reader.is_given(key, node, "`observe`") {
                settings.observe = observe(reader, node);
            }
        } else {
            unknown_key(reader, key, "the settings", "no setting has such a name", &KEYS, &[]);
        }
    }
    settings
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
    fn every_fault_of_the_settings_is_told_with_its_place() {
        let complaint = |text: &str| read_settings(text.as_bytes(), SETTINGS).unwrap_err().render(false);
        insta::assert_snapshot!(complaint("observe:\n  ignore: [/x]\n  inputs: [x/y, /a/../b]\nremote: {}\n"), @r"
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

        error: unknown key `remote` in the settings
         --> .pipeline/config.yaml:4:1
          |
        4 | remote: {}
          | ^^^^^^ no setting has such a name
          |
        help: the keys are `observe`
        ");
        let first = |text: &str| complaint(text).lines().next().unwrap_or_default().to_owned();
        let twice = "observe: {inputs: [/x], environment: [/x]}";
        assert_eq!(first(twice), "error: `/x` is both environment and input");
        assert_eq!(first("[]"), "error: the settings must be a map with the key `observe`, found a list");
        let number = "observe: {inputs: 3}";
        assert_eq!(first(number), "error: `inputs` of `observe` must be text, found the number `3`");
    }
}
