//! The text of a `nix.conf`: what its lines say, and lines of ours in it.
//!
//! How Nix reads one: `AbstractConfig::applyConfig` in `src/libutil/config.cc`, the same from
//! Nix 2.8 to 2.34. A `#` begins a comment anywhere; words are divided by blanks, tabs and
//! carriage returns; `name = value…` sets, `extra-name = value…` adds, later lines win.

use std::fmt;

use crate::formats::CacheName;
use crate::wire::DeviceId;

/// What stands at the end of each line that `larder use` wrote, before the cache.
const MARK: &str = "# larder use ";
/// Said by the first of our lines where the text before it had no end of line.
const JOINED: &str = " (the line before had no end)";

/// A cache of a box, as `larder use` names it in what it writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsedCache {
    /// The cache.
    pub cache: CacheName,
    /// Its box.
    pub device_id: DeviceId,
}

impl fmt::Display for UsedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.cache, self.device_id)
    }
}

/// One line that means something to Nix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// `name = values`, or `extra-name = values` where `adds`.
    Set { name: String, adds: bool, values: Vec<String> },
    /// `include path`, or `!include path`, of a file that need not be there.
    Include { path: String, must_exist: bool },
}

/// What the lines of `text` say, in order. Lines that Nix would refuse are passed over: it
/// says so itself.
pub(super) fn directives(text: &[u8]) -> Vec<Directive> {
    text.split(|byte| *byte == b'\n').filter_map(directive).collect()
}

fn directive(line: &[u8]) -> Option<Directive> {
    let line = line.split(|byte| *byte == b'#').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
    let (first, second) = (words.next()?, words.next()?);
    let path = || second.to_owned();
    match (first, second) {
        ("include", _) => Some(Directive::Include { path: path(), must_exist: true }),
        ("!include", _) => Some(Directive::Include { path: path(), must_exist: false }),
        (name, "=") => {
            let bare = name.strip_prefix("extra-");
            let (name, adds) = (bare.unwrap_or(name).to_owned(), bare.is_some());
            Some(Directive::Set { name, adds, values: words.map(str::to_owned).collect() })
        }
        _ => None,
    }
}

/// A text taken apart: what others wrote, and the lines that `larder use` added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conf {
    /// All that is not ours, byte for byte.
    pub(super) others: Vec<u8>,
    /// Ours, in the order in which they came: which cache, and `name = value`.
    pub(super) ours: Vec<(UsedCache, String)>,
}

impl Conf {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut conf = Self::default();
        let mut joint = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match own_line(line) {
                Some((used, setting, joined)) => {
                    if joined {
                        joint = line_end(line).len();
                    }
                    conf.ours.push((used, setting));
                }
                None => {
                    // Something follows: the end of line is needed now.
                    joint = 0;
                    conf.others.extend_from_slice(line);
                }
            }
        }
        // The end of line that was put between the two.
        conf.others.truncate(conf.others.len().saturating_sub(joint));
        conf
    }

    /// Puts lines in for a cache, in the place of those that it has.
    pub(super) fn put(&mut self, used: &UsedCache, settings: &[String]) {
        let place = self.ours.iter().position(|(whose, _)| whose == used);
        let place = place.unwrap_or(self.ours.len());
        self.ours.retain(|(whose, _)| whose != used);
        let lines = settings.iter().map(|setting| (used.clone(), setting.clone()));
        self.ours.splice(place..place, lines);
    }

    /// The caches that have lines, each once.
    pub(super) fn used(&self) -> Vec<UsedCache> {
        let mut used: Vec<_> = self.ours.iter().map(|(whose, _)| whose.clone()).collect();
        used.dedup();
        used
    }

    /// The text again. Our lines are the last ones: what a later line sets would undo them.
    pub(super) fn to_text(&self) -> Vec<u8> {
        let mut text = self.others.clone();
        let end = line_end(&self.others);
        let is_joined = !text.is_empty() && !text.ends_with(b"\n");
        for (number, (used, setting)) in self.ours.iter().enumerate() {
            let joined = if is_joined && number == 0 { JOINED } else { "" };
            if !joined.is_empty() {
                text.extend_from_slice(end.as_bytes());
            }
            text.extend_from_slice(format!("{setting} {MARK}{used}{joined}{end}").as_bytes());
        }
        text
    }
}

/// How the lines of a text end: as its first one does.
pub(super) fn line_end(text: &[u8]) -> &'static str {
    let first = text.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    if first.ends_with(b"\r\n") { "\r\n" } else { "\n" }
}

fn own_line(line: &[u8]) -> Option<(UsedCache, String, bool)> {
    let line = str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    let (setting, mark) = line.split_once(MARK)?;
    let (mark, joined) = mark.strip_suffix(JOINED).map_or((mark, false), |mark| (mark, true));
    let (cache, device_id) = mark.split_once('@')?;
    let used = UsedCache { cache: cache.parse().ok()?, device_id: device_id.parse().ok()? };
    Some((used, setting.trim_end().to_owned(), joined))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn used(cache: &str, device: u8) -> UsedCache {
        UsedCache { cache: cache.parse().unwrap(), device_id: DeviceId([device; 20]) }
    }

    fn lines() -> Vec<String> {
        vec!["extra-substituters = http://box:5273/main".into(), "netrc-file = /x".into()]
    }

    fn with(text: &[u8], who: &UsedCache) -> Vec<u8> {
        let mut conf = Conf::parse(text);
        conf.put(who, &lines());
        conf.to_text()
    }

    fn without(text: &[u8], who: &UsedCache) -> Vec<u8> {
        let mut conf = Conf::parse(text);
        conf.put(who, &[]);
        conf.to_text()
    }

    #[test]
    fn lines_mean_what_nix_takes_them_for() {
        let set = |name: &str, adds, values: &[&str]| Directive::Set {
            name: name.into(),
            adds,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let text = b"# x\nsubstituters = a\tb # c\r\nextra-substituters=z\nextra-x = y\n\
                     include  f\n!include g\nlonely\n = \nempty =\n";
        let include = |path: &str, must_exist| Directive::Include { path: path.into(), must_exist };
        assert_eq!(
            directives(text),
            [
                set("substituters", false, &["a", "b"]),
                set("x", true, &["y"]),
                include("f", true),
                include("g", false),
                set("empty", false, &[]),
            ]
        );
    }

    #[test]
    fn our_lines_come_last_and_say_whose_they_are() {
        let text = with(b"a = b", &used("main", 1));
        let id = DeviceId([1; 20]);
        let expected = format!(
            "a = b\nextra-substituters = http://box:5273/main # larder use main@{id} (the line \
             before had no end)\nnetrc-file = /x # larder use main@{id}\n"
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn what_somebody_wrote_behind_ours_keeps_its_line() {
        let mut text = with(b"a = b", &used("main", 1));
        text.extend_from_slice(b"c = d");
        assert_eq!(without(&text, &used("main", 1)), b"a = b\nc = d");
        let again = with(&text, &used("main", 1));
        assert!(again.starts_with(b"a = b\nc = d\nextra-substituters"));
    }

    proptest! {
        #[test]
        fn use_twice_is_use_once_and_remove_gives_the_bytes_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("substituters = https://a https://b".to_owned()),
                    Just("\r\n".to_owned()), Just("\n".to_owned()), Just("include x".to_owned()),
                    Just("# note".to_owned()), "\\PC{0,20}", Just("\r".to_owned()),
                ], 0..12),
        ) {
            let text = pieces.concat().into_bytes();
            let (one, other) = (used("main", 1), used("main", 2));
            let once = with(&text, &one);
            prop_assert_eq!(&with(&once, &one), &once);
            prop_assert_eq!(&without(&once, &one), &text);
            let both = with(&once, &other);
            prop_assert_eq!(&without(&both, &other), &once);
            prop_assert_eq!(&without(&without(&both, &one), &other), &text);
        }

        #[test]
        fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let who = used("main", 1);
            prop_assert_eq!(without(&with(&text, &who), &who), text);
        }
    }
}
