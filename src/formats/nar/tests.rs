use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::formats::limits;

/// A tree in memory; what a property test makes up.
#[derive(Clone, Debug)]
enum Tree {
    Regular(bool, Vec<u8>),
    Symlink(Vec<u8>),
    Directory(std::collections::BTreeMap<Vec<u8>, Tree>),
}

/// An event with its bytes; the pieces of a file's contents are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Directory,
    Entry(Vec<u8>),
    EndDirectory,
    Regular(bool, u64, u64, Vec<u8>),
    Symlink(Vec<u8>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("no slash or NUL", |byte| !matches!(byte, b'/' | 0)), 1..12)
        .prop_filter("no dots", |name| name != b"." && name != b"..")
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (any::<bool>(), vec(any::<u8>(), 0..70)).prop_map(|(x, bytes)| Tree::Regular(x, bytes)),
        vec(1_u8.., 1..20).prop_map(Tree::Symlink),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| btree_map(name(), inner, 0..6).prop_map(Tree::Directory))
}

fn write(tree: &Tree) -> Vec<u8> {
    fn node(writer: &mut NarWriter<Vec<u8>>, tree: &Tree) {
        match tree {
            Tree::Regular(executable, bytes) => {
                let size = u64::try_from(bytes.len()).unwrap();
                writer.regular(*executable, size, &mut bytes.as_slice()).unwrap();
            }
            Tree::Symlink(target) => writer.symlink(target).unwrap(),
            Tree::Directory(entries) => {
                writer.begin_directory().unwrap();
                for (name, entry) in entries {
                    writer.begin_entry(name).unwrap();
                    node(writer, entry);
                    writer.end_entry().unwrap();
                }
                writer.end_directory().unwrap();
            }
        }
    }
    let mut writer = NarWriter::new(Vec::new()).unwrap();
    node(&mut writer, tree);
    writer.into_inner()
}

fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Told>, NarError> {
    let mut parser = NarParser::new();
    let mut told = Vec::new();
    for piece in pieces {
        parser.feed(piece, &mut |event| match event {
            Event::Directory => told.push(Told::Directory),
            Event::Entry(name) => told.push(Told::Entry(name.to_vec())),
            Event::EndDirectory => told.push(Told::EndDirectory),
            Event::Regular { executable, size, offset } => {
                told.push(Told::Regular(executable, size, offset, Vec::new()));
            }
            Event::Contents(bytes) => match told.last_mut() {
                Some(Told::Regular(_, _, _, contents)) => contents.extend_from_slice(bytes),
                other => panic!("contents behind {other:?}"),
            },
            Event::Symlink(target) => told.push(Told::Symlink(target.to_vec())),
        })?;
    }
    parser.finish()?;
    Ok(told)
}

fn oracle(nar: &[u8]) -> Result<Vec<Told>, String> {
    let mut told = Vec::new();
    nix_archive::nar::decode_events(nar, |event| {
        match event {
            nix_archive::nar::Event::DirectoryStart { name } => {
                told.extend(name.map(|name| Told::Entry(name.to_vec())));
                told.push(Told::Directory);
            }
            nix_archive::nar::Event::DirectoryEnd { .. } => told.push(Told::EndDirectory),
            nix_archive::nar::Event::Regular { name, executable, contents } => {
                told.extend(name.map(|name| Told::Entry(name.to_vec())));
                let offset = contents.as_ptr().addr() - nar.as_ptr().addr();
                let (size, offset) = (contents.len().try_into(), offset.try_into());
                let (size, offset) = (size.unwrap(), offset.unwrap());
                told.push(Told::Regular(executable, size, offset, contents.to_vec()));
            }
            nix_archive::nar::Event::Symlink { name, target } => {
                told.extend(name.map(|name| Told::Entry(name.to_vec())));
                told.push(Told::Symlink(target.to_vec()));
            }
        }
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    Ok(told)
}

/// The strings of a NAR, each with its length and padding.
fn strings(texts: &[&[u8]]) -> Vec<u8> {
    let mut nar = Vec::new();
    for text in texts {
        let length = u64::try_from(text.len()).unwrap();
        nar.extend_from_slice(&length.to_le_bytes());
        nar.extend_from_slice(text);
        nar.extend(vec![0; padding_len(length)]);
    }
    nar
}

fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut texts: Vec<&[u8]> = vec![MAGIC, b"(", b"type", b"directory"];
    for name in names {
        texts.extend([b"entry".as_slice(), b"(", b"name", name, b"node"]);
        texts.extend([b"(".as_slice(), b"type", b"symlink", b"target", b"x", b")", b")"]);
    }
    texts.push(b")");
    strings(&texts)
}

proptest! {
    #[test]
    fn what_is_written_is_told(tree in tree()) {
        let nar = write(&tree);
        let told = parse([nar.as_slice()]).unwrap();
        prop_assert_eq!(&told, &oracle(&nar).unwrap());
    }

    #[test]
    fn the_split_does_not_matter(tree in tree(), cuts in vec(any::<prop::sample::Index>(), 0..20)) {
        let nar = write(&tree);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(nar.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(nar.len()));
        let pieces = starts.zip(ends).map(|(start, end)| &nar[start..end]);
        prop_assert_eq!(parse(pieces), parse([nar.as_slice()]));
    }

    #[test]
    fn a_damaged_nar_is_judged_as_by_the_oracle(
        tree in tree(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut nar = write(&tree);
        let place = place.index(nar.len());
        nar[place] = byte;
        match (parse([nar.as_slice()]), oracle(&nar)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(_), Err(_)) => {}
            // Nix refuses these since 2.31, and no file system can hold them.
            (Err(NarError::Target | NarError::TooLong { .. }), Ok(_)) => {}
            (Err(error), Ok(theirs)) => prop_assert!(false, "{error}, the oracle: {theirs:?}"),
            (Ok(ours), Err(error)) => prop_assert!(false, "we took {ours:?}, the oracle: {error}"),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _either_way = parse([bytes.as_slice()]);
        let mut nar = strings(&[MAGIC, b"(", b"type", b"regular", b"contents"]);
        nar.extend_from_slice(&bytes);
        let _either_way = parse([nar.as_slice()]);
    }

    #[test]
    fn a_part_is_not_a_whole(tree in tree(), cut in any::<prop::sample::Index>()) {
        let nar = write(&tree);
        let part = &nar[..cut.index(nar.len())];
        let length = u64::try_from(part.len()).unwrap();
        prop_assert_eq!(parse([part]), Err(NarError::Truncated(length)));
    }

    #[test]
    fn a_listing_is_json_that_knows_every_file(tree in tree()) {
        let nar = write(&tree);
        let mut builder = ListingBuilder::new();
        let mut files = Vec::new();
        let mut parser = NarParser::new();
        parser.feed(&nar, &mut |event| {
            builder.note(event);
            if let Event::Regular { size, offset, .. } = event {
                files.push((size, offset));
            }
        }).unwrap();
        if let Some(json) = builder.finish() {
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&value["version"], 1);
            let mut found = Vec::new();
            collect(&value["root"], &mut found);
            prop_assert_eq!(found, files);
        }
    }
}

fn collect(node: &serde_json::Value, found: &mut Vec<(u64, u64)>) {
    match node["type"].as_str() {
        Some("regular") => {
            found.push((node["size"].as_u64().unwrap(), node["narOffset"].as_u64().unwrap()));
        }
        Some("directory") => {
            for entry in node["entries"].as_object().unwrap().values() {
                collect(entry, found);
            }
        }
        other => assert_eq!(other, Some("symlink")),
    }
}

#[test]
fn planted_names_are_refused() {
    for name in [b"".as_slice(), b".", b"..", b"a/b", b"/", b"a\0b", b"../x"] {
        assert!(
            matches!(parse([directory(&[name]).as_slice()]), Err(NarError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn entries_are_sorted_and_unique() {
    for names in [[b"b".as_slice(), b"a"], [b"a", b"a"]] {
        assert!(matches!(parse([directory(&names).as_slice()]), Err(NarError::Order(_))));
    }
    parse([directory(&[b"A", b"a", b"a.b", b"a0"]).as_slice()]).unwrap();
}

#[test]
fn every_string_is_bounded() {
    let name = vec![b'x'; limits::NAR_NAME_BYTES_MAX];
    parse([directory(&[&name]).as_slice()]).unwrap();
    let name = vec![b'x'; limits::NAR_NAME_BYTES_MAX + 1];
    assert!(matches!(parse([directory(&[&name]).as_slice()]), Err(NarError::TooLong { .. })));
    let huge = [u64::MAX.to_le_bytes()].concat();
    assert!(matches!(parse([huge.as_slice()]), Err(NarError::TooLong { .. })));
}

#[test]
fn nesting_is_bounded() {
    let mut texts: Vec<&[u8]> = vec![MAGIC];
    for _ in 0..=limits::NAR_DEPTH_MAX {
        texts.extend([
            b"(".as_slice(),
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            b"d",
            b"node",
        ]);
    }
    assert_eq!(parse([strings(&texts).as_slice()]), Err(NarError::Depth));
}

#[test]
fn nothing_follows_the_end_and_padding_is_zero() {
    let nar = write(&Tree::Regular(false, b"x".to_vec()));
    let longer = [nar.as_slice(), &[0]].concat();
    let length_of = |place: usize| u64::try_from(place).unwrap();
    let length = length_of(nar.len());
    assert_eq!(parse([longer.as_slice()]), Err(NarError::TrailingBytes(length)));
    let contents = nar.windows(8).position(|window| window == b"x\0\0\0\0\0\0\0").unwrap();
    let mut dirty = nar.clone();
    dirty[contents + 3] = 1;
    let offset = NarError::Padding(length_of(contents + 3));
    assert_eq!(parse([dirty.as_slice()]), Err(offset.clone()));
    assert_eq!(parse(dirty.chunks(2)), Err(offset), "the same in pieces");
    // The first word, `(`, has seven zeros behind it.
    let word = 24 + 8;
    let mut dirty = nar;
    dirty[word + 6] = 1;
    let offset = NarError::Padding(length_of(word + 6));
    assert_eq!(parse([dirty.as_slice()]), Err(offset.clone()));
    assert_eq!(parse(dirty.chunks(1)), Err(offset));
}

#[test]
fn a_listing_reads_as_nix_writes_it() {
    let tree = Tree::Directory(std::collections::BTreeMap::from([
        (b"bin".to_vec(), Tree::Regular(true, b"#!".to_vec())),
        (b"empty".to_vec(), Tree::Directory(std::collections::BTreeMap::new())),
        (b"link".to_vec(), Tree::Symlink(b"a \"b\"".to_vec())),
    ]));
    let mut builder = ListingBuilder::new();
    NarParser::new().feed(&write(&tree), &mut |event| builder.note(event)).unwrap();
    assert_eq!(
        builder.finish().unwrap(),
        "{\"root\":{\"entries\":{\
         \"bin\":{\"executable\":true,\"narOffset\":264,\"size\":2,\"type\":\"regular\"},\
         \"empty\":{\"entries\":{},\"type\":\"directory\"},\
         \"link\":{\"target\":\"a \\\"b\\\"\",\"type\":\"symlink\"}},\
         \"type\":\"directory\"},\"version\":1}"
    );
}

#[test]
fn a_listing_that_would_be_too_long_is_none() {
    let listing = |names: usize, target: &[u8]| {
        let names: Vec<_> = (0..names).map(|number| format!("{number:06}").into_bytes()).collect();
        let entries = names.into_iter().map(|name| (name, Tree::Symlink(target.to_vec())));
        let mut builder = ListingBuilder::new();
        let nar = write(&Tree::Directory(entries.collect()));
        NarParser::new().feed(&nar, &mut |event| builder.note(event)).unwrap();
        builder.finish()
    };
    assert!(listing(limits::LISTING_ENTRIES_MAX, b"x").is_some());
    assert!(listing(limits::LISTING_ENTRIES_MAX + 1, b"x").is_none());
    let long = [b'x'; 4000];
    assert!(listing(limits::LISTING_BYTES_MAX / long.len() - 100, &long).is_some());
    assert!(listing(limits::LISTING_BYTES_MAX / long.len(), &long).is_none());
}

#[test]
fn a_listing_never_tells_names_that_json_cannot_hold() {
    for (name, target) in [(b"\xff".as_slice(), b"x".as_slice()), (b"x", b"\xff")] {
        let tree = Tree::Directory(
            [(name.to_vec(), Tree::Symlink(target.to_vec()))].into_iter().collect(),
        );
        let mut builder = ListingBuilder::new();
        NarParser::new().feed(&write(&tree), &mut |event| builder.note(event)).unwrap();
        assert_eq!(builder.finish(), None);
    }
}
