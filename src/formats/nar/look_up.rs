//! A listing as it is read for one entry. It may have 100,000 of them, so no tree is made of it: the
//! JSON is read past, and only what lies on the way is kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What stands at a path, or the first symlink on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    File {
        offset: u64,
        size: u64,
    },
    Directory,
    Symlink {
        /// Segments that led to it.
        depth: usize,
        target: String,
    },
    Missing,
}

/// Reads the listing through once.
pub(super) fn look_up(listing: &[u8], path: &[&str]) -> Result<Found, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(listing);
    let found = Root(path).deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

/// `{"root": ENTRY, "version": 1}`
struct Root<'a>(&'a [&'a str]);

/// An entry that lies `depth` segments deep; `path` goes on from it.
struct Node<'a> {
    path: &'a [&'a str],
    depth: usize,
}

/// The entries of a directory.
struct Entries<'a> {
    path: &'a [&'a str],
    depth: usize,
}

/// Whether a key is this one.
struct IsKey<'a>(&'a str);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Type,
    Target,
    NarOffset,
    Size,
    Entries,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Regular,
    Directory,
    Symlink,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a listing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::Missing;
        while let Some(is_root) = map.next_key_seed(IsKey("root"))? {
            if is_root {
                found = map.next_value_seed(Node { path: self.0, depth: 0 })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry of a listing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let Self { path, depth } = self;
        let (mut kind, mut offset, mut size) = (None, None, None);
        let (mut target, mut below) = (None, Found::Missing);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Type => kind = Some(map.next_value::<Kind>()?),
                Field::NarOffset => offset = Some(map.next_value()?),
                Field::Size => size = Some(map.next_value()?),
                Field::Target => target = Some(map.next_value()?),
                Field::Entries => below = map.next_value_seed(Entries { path, depth })?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(match (kind, offset, size, target) {
            (Some(Kind::Directory), ..) if path.is_empty() => Found::Directory,
            (Some(Kind::Directory), ..) => below,
            (Some(Kind::Regular), Some(offset), Some(size), _) if path.is_empty() => {
                Found::File { offset, size }
            }
            (Some(Kind::Symlink), _, _, Some(target)) => Found::Symlink { depth, target },
            _ => Found::Missing,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entries of a directory")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::Missing;
        let Some((first, path)) = self.path.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(found);
        };
        while let Some(is_first) = map.next_key_seed(IsKey(first))? {
            if is_first {
                found = map.next_value_seed(Node { path, depth: self.depth + 1 })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}
