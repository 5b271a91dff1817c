//! The name somebody probably meant.

/// Finds the candidate most like `word`, where one is like it enough to be offered.
///
/// Case and the difference between `_` and `-` do not count, and the beginning of a candidate is like it.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One letter of three is too much: who writes `gpu` does not mean `cpu`.
    const ENOUGH: f64 = 0.67;
    const SHORTEST_BEGINNING: usize = 4;
    let word = plain(word);
    let likeness = |candidate: &str| {
        let candidate = plain(candidate);
        let begins = word.chars().count() >= SHORTEST_BEGINNING && candidate.starts_with(&word);
        let likeness = strsim::normalized_damerau_levenshtein(&word, &candidate);
        if begins { likeness.max(ENOUGH) } else { likeness }
    };
    let mut best = None;
    for candidate in candidates {
        let likeness = likeness(candidate);
        // Of equals the first is offered.
        if likeness >= ENOUGH && best.is_none_or(|(highest, _)| likeness > highest) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace(['_', ' '], "-")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_seen_and_strangers_are_not() {
        let keys = ["prompt", "negative_prompt", "guidance_scale"];
        assert_eq!(nearest("promt", keys), Some("prompt"));
        assert_eq!(nearest("Guidance-Scale", keys), Some("guidance_scale"));
        assert_eq!(nearest("gudiance_scale", keys), Some("guidance_scale"));
        assert_eq!(nearest("guidance", keys), Some("guidance_scale"));
        assert_eq!(nearest("seed", keys), None);
        assert_eq!(nearest("gpu", ["cpu"]), None);
        assert_eq!(nearest("", keys), None);
    }
}
