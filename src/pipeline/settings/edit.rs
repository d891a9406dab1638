//! Adding a remote to settings and taking one out, as a person would: every other byte stays.
//!
//! As with definitions: what was written counts only if it means what it should, so a style that is not understood costs
//! an edit by hand, never a comment or a meaning.

use super::{Settings, read_settings};
use crate::pipeline::edit::spell::{Quotes, spell};
use crate::pipeline::edit::text::{after_line, is_in_flow, line_end, line_start, own_entries, spliced};
use crate::yaml::{self, Key, Node, Value};

/// Returns settings with a remote more, or with another address for it; `None` if that has to be done by hand.
///
/// `text` must be settings without a mistake.
pub fn with_remote(text: &str, name: &str, address: &str) -> Option<String> {
    let before = settings(text)?;
    let mut intended = before.clone();
    intended.remotes.insert(name.to_owned(), address.to_owned());
    if before == intended {
        return Some(text.to_owned());
    }
    let entry = format!("{}: {}", spell(name, Quotes::Plain), spell(address, Quotes::Plain));
    chosen(additions(text, name, address, &entry), &intended)
}

/// Returns settings without a remote that they have; `None` if that has to be done by hand.
pub fn without_remote(text: &str, name: &str) -> Option<String> {
    let mut intended = settings(text)?;
    intended.remotes.remove(name)?;
    chosen(removals(text, name), &intended)
}

fn settings(text: &str) -> Option<Settings> {
    read_settings(text.as_bytes(), "").ok()
}

fn chosen(candidates: Vec<String>, intended: &Settings) -> Option<String> {
    candidates.into_iter().find(|candidate| settings(candidate).as_ref() == Some(intended))
}

fn remotes(root: &Node) -> Option<&(Key, Node)> {
    let Value::Map(entries) = &root.value else { return None };
    entries.iter().find(|(key, _)| key.text == "remotes")
}

fn additions(text: &str, name: &str, address: &str, entry: &str) -> Vec<String> {
    let Ok(root) = yaml::read_spanned(text.as_bytes()) else { return Vec::new() };
    let Some((key, map)) = remotes(&root) else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
        return vec![format!("{text}{gap}remotes:{eol}  {entry}{eol}")];
    };
    let own = own_entries(map);
    if let Some((_, node)) = own.iter().find(|(key, _)| key.text == name) {
        return vec![spliced(text, node.span.clone(), &spell(address, Quotes::of(&text[node.span.clone()])))];
    }
    let eol = line_end(text, key.span.start);
    let Some((last, value)) = own.iter().max_by_key(|(_, node)| node.span.end) else {
        // `remotes: {}`
        return vec![spliced(text, map.span.clone(), &format!("{{{entry}}}"))];
    };
    if is_in_flow(text, map) {
        return vec![spliced(text, value.span.end..value.span.end, &format!(", {entry}"))];
    }
    let indent = &text[line_start(text, last.span.start)..last.span.start];
    vec![after_line(text, value.span.end, &format!("{indent}{entry}{eol}"), eol)]
}

fn removals(text: &str, name: &str) -> Vec<String> {
    let Ok(root) = yaml::read_spanned(text.as_bytes()) else { return Vec::new() };
    let Some((whole, map)) = remotes(&root) else { return Vec::new() };
    let own = own_entries(map);
    let Some(at) = own.iter().position(|(key, _)| key.text == name) else { return Vec::new() };
    let (key, value) = own[at];
    let next_line = |at: usize| text[at..].find('\n').map_or(text.len(), |end| at + end + 1);
    if own.len() == 1 {
        let lines = line_start(text, whole.span.start)..next_line(map.span.end.max(value.span.end).saturating_sub(1));
        return vec![spliced(text, lines, ""), spliced(text, map.span.clone(), "{}")];
    }
    if is_in_flow(text, map) {
        let range = match (at.checked_sub(1), own.get(at + 1)) {
            (Some(before), _) => own[before].1.span.end..value.span.end,
            (None, Some((next, _))) => key.span.start..next.span.start,
            (None, None) => return Vec::new(),
        };
        return vec![spliced(text, range, "")];
    }
    vec![spliced(text, line_start(text, key.span.start)..next_line(value.span.end.saturating_sub(1)), "")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_added_and_taken_out_again_and_every_other_byte_stays() {
        for text in [
            "",
            "# ours\nobserve:\n  inputs: [/data]  # shared\n",
            "remotes:\n  lab: /srv/pv   # the old one\n\n# end\nobserve: {inputs: [/x]}\n",
            "remotes: {lab: /srv/pv}\nremote: {default: lab}\n",
            "remotes:\r\n    lab: '/srv/pv'\r\nremote:\r\n    trust: all\r\n",
            "remote: {trust: none}",
        ] {
            let with = with_remote(text, "cloud", "s3://bucket/a b: c").unwrap_or_else(|| panic!("{text}"));
            assert_eq!(settings(&with).unwrap().remotes["cloud"], "s3://bucket/a b: c", "{with}");
            for line in text.lines() {
                assert!(with.contains(line.trim_end_matches('}')), "{line} is gone from {with}");
            }
            let without = without_remote(&with, "cloud").unwrap_or_else(|| panic!("{with}"));
            assert_eq!(without.trim_end(), text.trim_end());
        }
    }

    #[test]
    fn another_address_takes_the_place_of_the_old_one_and_the_last_remote_takes_the_key_with_it() {
        let text = "remotes:\n  lab: '/srv/pv' # here\n";
        assert_eq!(with_remote(text, "lab", "/mnt").unwrap(), "remotes:\n  lab: '/mnt' # here\n");
        assert_eq!(without_remote(text, "lab").unwrap(), "");
        assert_eq!(
            without_remote("remotes: {lab: /x}\nobserve: {inputs: [/a]}\n", "lab").unwrap(),
            "observe: {inputs: [/a]}\n"
        );
        assert_eq!(with_remote("remotes: {}\n", "lab", "/x").unwrap(), "remotes: {lab: /x}\n");
        assert_eq!(without_remote(text, "other"), None);
        assert_eq!(
            with_remote("remotes: &all {a: /x}\n", "b", "/y").map(|text| settings(&text).unwrap().remotes.len()),
            Some(2)
        );
    }
}
