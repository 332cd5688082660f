//! The library that makes file operations of the real program fail, and what steers it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// As in `shim.c`.
const PAGE: u64 = 4096;
const PAGES_MAX: u64 = 4096;
const PAGES_AT: u64 = PAGE;
const BEFORE_AT: u64 = PAGES_AT + PAGES_MAX * 32;
const HIT_AT: u64 = 64;
const HIT_LEN: usize = 512;
const COUNT: u64 = 2;
const FIRED: u64 = 5;
const OVERFLOW: u64 = 6;

/// Kinds of calls, as in `shim.c`.
const OPEN_READ: u64 = 1;
const ALL: u64 = 1023;
const OPEN_WRITE: u64 = 2;
const CREATE: u64 = 4;
const SYNC: u64 = 16;
const WRITE: u64 = 8;
const RENAME: u64 = 32;
const TRUNCATE: u64 = 64;
const UNLINK: u64 = 128;
const MKDIR: u64 = 256;
const LINK: u64 = 512;

/// An error of the system, and the calls that it is met at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    number: u64,
    kinds: u64,
}

impl Fault {
    /// Whether also what is only opened to be read may fail.
    pub(super) const fn is_met_by_readers(self) -> bool {
        self.kinds & OPEN_READ != 0
    }
}

/// Only what is opened to be read.
pub(super) const FAILED_OPEN: Fault =
    Fault { name: "EIO of opens", number: 5, kinds: OPEN_READ | OPEN_WRITE };
/// Only what is new.
pub(super) const FAILED_CREATE: Fault =
    Fault { name: "ENOSPC of new files", number: 28, kinds: CREATE };
/// A sync alone.
pub(super) const FAILED_SYNC: Fault = Fault { name: "EIO of syncs", number: 5, kinds: SYNC };

pub(super) const FAULTS: [Fault; 4] = [
    // A full disk is found by whoever wants more of it; by a sync where room is given out late.
    Fault { name: "ENOSPC", number: 28, kinds: CREATE | WRITE | SYNC | RENAME | MKDIR | LINK },
    Fault { name: "EIO", number: 5, kinds: ALL },
    Fault {
        name: "EACCES",
        number: 13,
        kinds: OPEN_READ | OPEN_WRITE | CREATE | RENAME | UNLINK | MKDIR | LINK,
    },
    // Also of files that are open: a file system that found an error in itself does so.
    Fault {
        name: "EROFS",
        number: 30,
        kinds: OPEN_WRITE | CREATE | WRITE | SYNC | RENAME | TRUNCATE | UNLINK | MKDIR | LINK,
    },
];

/// Builds the library in `folder`.
pub(super) fn build_shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, include_str!("shim.c")).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output()
        .expect("cc");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// Steers one program at a time.
pub(super) struct Control {
    file: File,
    path: PathBuf,
    shim: PathBuf,
}

impl Control {
    /// Nothing fails until [`arm`](Self::arm).
    pub(super) fn new(folder: &Path, shim: &Path) -> Self {
        let path = folder.join("control");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(BEFORE_AT + PAGES_MAX * PAGE).unwrap();
        Self { file, path, shim: shim.to_owned() }
    }

    /// What a program needs in its environment; its working folder is the one above `data`.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.shim.display().to_string()),
            ("LARDER_FAULTS_BELOW", "data".to_owned()),
            ("LARDER_FAULTS_CONTROL", self.path.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The `number`th call from now on, of those that the fault is met at, fails; `goes_on`: all
    /// behind it too, except where something is only opened to be read.
    pub(super) fn arm(&self, fault: Fault, number: u64, goes_on: bool) {
        let kinds = if goes_on { fault.kinds & !OPEN_READ } else { fault.kinds };
        self.disarm();
        self.set_text(&[0; HIT_LEN]);
        for (place, value) in [
            (1, number),
            (COUNT, 0),
            (3, u64::from(goes_on)),
            (4, fault.number),
            (FIRED, 0),
            (0, kinds),
        ] {
            self.set(place, value);
        }
    }

    /// The condition has ended.
    pub(super) fn disarm(&self) {
        self.set(0, 0);
    }

    /// The first call that was made to fail.
    pub(super) fn hit(&self) -> Option<String> {
        let mut text = [0; HIT_LEN];
        self.file.read_exact_at(&mut text, HIT_AT).unwrap();
        let text = text.split(|byte| *byte == 0).next().unwrap();
        (self.get(FIRED) > 0).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// Takes back what was written below `data` and not synced, or lost with a sync that failed:
    /// the program must have ended.
    pub(super) fn lose_power(&self, data: &Path) {
        assert_eq!(self.get(OVERFLOW), 0, "more was written than the shim remembers");
        let mut files = HashMap::new();
        find_files(data, &mut files);
        for entry in 0..PAGES_MAX {
            let [inode, number] = [0, 1].map(|word| self.get((PAGES_AT + entry * 32) / 8 + word));
            let Some(path) = files.get(&inode) else { continue };
            let file = File::options().write(true).open(path).unwrap();
            let end = file.metadata().unwrap().len();
            let length = end.saturating_sub(number * PAGE).min(PAGE);
            let mut before = vec![0; usize::try_from(length).unwrap()];
            self.file.read_exact_at(&mut before, BEFORE_AT + entry * PAGE).unwrap();
            file.write_all_at(&before, number * PAGE).unwrap();
        }
    }

    fn get(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, place * 8).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, place: u64, value: u64) {
        self.file.write_all_at(&value.to_le_bytes(), place * 8).unwrap();
    }

    fn set_text(&self, text: &[u8]) {
        self.file.write_all_at(text, HIT_AT).unwrap();
    }
}

fn find_files(folder: &Path, found: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let facts = entry.metadata().unwrap();
        if facts.is_dir() {
            find_files(&entry.path(), found);
        } else {
            found.insert(facts.ino(), entry.path());
        }
    }
}
