//! Declaring what a definition leaves out.

use std::collections::{BTreeMap, BTreeSet};

use super::Audited;
use crate::pipeline::{Addition, COMBINATION_MARK, edit, read};

/// A definition that says more than before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fixed {
    /// The new text.
    pub text: String,
    /// What was added.
    pub added: Vec<Addition>,
    /// What could not be added: a text in a style that is not understood, or something that does not fit together.
    pub by_hand: Vec<Addition>,
}

/// Returns `text`, the definition shown as `file`, with what `audited` steps leave out, as far as it can be declared.
///
/// Nothing is removed. The new text is a good definition, or it is the old one. Costs a few passes over the text for each addition.
pub fn fix(text: &str, file: &str, audited: &[Audited]) -> Fixed {
    let mut fixed = Fixed { text: text.to_owned(), ..Fixed::default() };
    for (addition, is_for_all) in additions(audited) {
        // What one combination of a matrix leaves out is not known to be right for the others.
        if !(is_for_all && fixed.try_to_add(&addition, file)) {
            fixed.add_one_by_one(addition, is_for_all, file);
        }
    }
    fixed
}

impl Fixed {
    fn try_to_add(&mut self, addition: &Addition, file: &str) -> bool {
        let Ok(edited) = edit(&self.text, std::slice::from_ref(addition)) else { return false };
        let is_good = edited.by_hand.is_empty() && read(edited.text.as_bytes(), file).is_ok();
        if is_good {
            self.text = edited.text;
            self.added.push(addition.clone());
        }
        is_good
    }

    /// Adds the items that fit, and leaves the others to the user.
    fn add_one_by_one(&mut self, addition: Addition, is_for_all: bool, file: &str) {
        let Addition::Items { step, key, items } = &addition else { return self.by_hand.push(addition) };
        if items.len() < 2 || !is_for_all {
            return self.by_hand.push(addition);
        }
        let with = |items: Vec<String>| Addition::Items { step: step.clone(), key, items };
        let mut misfits = Vec::new();
        let before = self.added.len();
        for item in items {
            if !self.try_to_add(&with(vec![item.clone()]), file) {
                misfits.push(item.clone());
            }
        }
        if self.added.len() > before {
            self.added.truncate(before);
            self.added.push(with(items.iter().filter(|item| !misfits.contains(item)).cloned().collect()));
        }
        if !misfits.is_empty() {
            self.by_hand.push(with(misfits));
        }
    }
}

/// Returns what to add to each step of the file, and whether all combinations of the step that were audited leave it out.
fn additions(audited: &[Audited]) -> Vec<(Addition, bool)> {
    let family = |step: &str| step.split(COMBINATION_MARK).next().unwrap_or(step).to_owned();
    let mut members: BTreeMap<String, usize> = BTreeMap::new();
    audited.iter().for_each(|audited| *members.entry(family(&audited.step)).or_default() += 1);
    let mut counts: BTreeMap<(String, &'static str), BTreeMap<String, usize>> = BTreeMap::new();
    let mut flags: BTreeSet<(String, &'static str)> = BTreeSet::new();
    for addition in audited.iter().flat_map(Audited::additions) {
        match addition {
            Addition::Items { step, key, items } => {
                let counts = counts.entry((step.unwrap_or_default(), key)).or_default();
                items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
            }
            Addition::Flag { step, key } => drop(flags.insert((step, key))),
            // What a step reads never asks for one.
            Addition::Image { .. } => {}
        }
    }
    let mut additions = Vec::new();
    for ((step, key), counts) in counts {
        let all = members.get(&step).copied().unwrap_or_default();
        let (common, some): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(_, count)| *count == all);
        for (items, is_for_all) in [(common, true), (some, false)] {
            let items: Vec<String> = items.into_iter().map(|(item, _)| item).collect();
            if !items.is_empty() {
                additions.push((Addition::Items { step: Some(step.clone()), key, items }, is_for_all));
            }
        }
    }
    additions.extend(flags.into_iter().map(|(step, key)| (Addition::Flag { step, key }, true)));
    additions
}
