//! NARs: what is accepted writes back to the same bytes, however it is cut into pieces, and the
//! parser holds one name a level whatever comes.
#![no_main]

use larder::formats::limits::{NAR_DEPTH_MAX, NAR_NAME_BYTES_MAX, NAR_TARGET_BYTES_MAX};
use larder::formats::nar::{Event, ListingBuilder, NarError, NarParser, NarWriter};
use larder_fuzz::{pieces, seed, within};
use libfuzzer_sys::fuzz_target;

/// What a parser may hold, doubled because a buffer grows by copying.
const HELD_MAX: usize =
    2 * (NAR_DEPTH_MAX * (NAR_NAME_BYTES_MAX + 32) + 2 * NAR_TARGET_BYTES_MAX) + (8 << 10);

fn told<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), NarError> {
    let mut parser = NarParser::new();
    for part in parts {
        parser.feed(part, on_event)?;
    }
    parser.finish()
}

/// Writes what is told.
struct Again {
    writer: NarWriter<Vec<u8>>,
    open: Vec<bool>,
    left: Option<(u64, u64)>,
}

impl Again {
    fn ended(&mut self) {
        if self.open.last().copied().unwrap_or(false) {
            self.open.pop();
            self.writer.end_entry().unwrap();
        }
    }

    fn note(&mut self, event: Event<'_>) {
        let writer = &mut self.writer;
        match event {
            Event::Directory => {
                writer.begin_directory().unwrap();
                self.open.push(false);
            }
            Event::Entry(name) => {
                writer.begin_entry(name).unwrap();
                self.open.push(true);
            }
            Event::EndDirectory => {
                writer.end_directory().unwrap();
                assert_eq!(self.open.pop(), Some(false));
                self.ended();
            }
            Event::Regular { executable, size, .. } => {
                writer.begin_regular(executable, size).unwrap();
                self.left = Some((size, size));
                self.contents(&[]);
            }
            Event::Contents(bytes) => {
                assert!(!bytes.is_empty());
                self.contents(bytes);
            }
            Event::Symlink(target) => {
                writer.symlink(target).unwrap();
                self.ended();
            }
        }
    }

    fn contents(&mut self, bytes: &[u8]) {
        let (size, left) = self.left.expect("a file is open");
        self.writer.contents(bytes).unwrap();
        let left = left.checked_sub(bytes.len() as u64).expect("no more than its size");
        self.left = Some((size, left));
        if left == 0 {
            self.left = None;
            self.writer.end_regular(size).unwrap();
            self.ended();
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, nar)) = seed(data) else { return };
    let at_once = within(HELD_MAX, || told([nar].into_iter(), &mut |_| {}));
    let in_pieces = within(HELD_MAX, || told(pieces(nar, seed), &mut |_| {}));
    assert_eq!(at_once, in_pieces);
    let mut listing = ListingBuilder::new();
    let _either_way = told(pieces(nar, seed), &mut |event| listing.note(event));
    if at_once.is_err() {
        return;
    }
    if let Some(json) = listing.finish() {
        assert!(json.starts_with('{') && json.ends_with('}'));
    }
    let mut again =
        Again { writer: NarWriter::new(Vec::new()).unwrap(), open: Vec::new(), left: None };
    told(pieces(nar, seed), &mut |event| again.note(event)).unwrap();
    assert!(again.open.is_empty() && again.left.is_none());
    assert_eq!(again.writer.into_inner(), nar);
});
