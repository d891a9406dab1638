//! Guessing what somebody meant. The one door to `strsim`.

/// Returns the candidate that `word` is most likely a slip of; `None` if none is close.
///
/// Up to a third of the letters may differ. Of equally close ones the first wins.
pub fn closest<'word>(word: &str, candidates: impl IntoIterator<Item = &'word str>) -> Option<&'word str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns the hint for a slip of one of the `candidates`.
pub(super) fn did_you_mean<'word>(word: &str, candidates: impl IntoIterator<Item = &'word str>) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["inputs", "outputs", "run", "env"];
        assert_eq!(closest("imputs", keys), Some("inputs"));
        assert_eq!(closest("Outputs", keys), Some("outputs"));
        assert_eq!(closest("rnu", keys), Some("run"));
        assert_eq!(closest("matrix", keys), None);
        assert_eq!(closest("x", ["y"]), None);
    }
}
