//! Names that were meant, perhaps.

/// How alike two names must be, of 1; what clap takes for commands and options.
const ALIKE: f64 = 0.7;

/// The most similar of `names`, if it is similar at all.
pub(super) fn near(name: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let scored = names.into_iter().map(|other| (strsim::jaro(name, &other), other));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score > ALIKE).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_and_another_word_is_none() {
        let names = || ["main", "branches", "team"].map(str::to_owned);
        assert_eq!(near("mian", names()).as_deref(), Some("main"));
        assert_eq!(near("branchs", names()).as_deref(), Some("branches"));
        assert_eq!(near("zoo", names()), None);
        assert_eq!(near("main", []), None);
    }
}
