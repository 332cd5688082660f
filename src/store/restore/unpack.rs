//! Taking a backup apart. Nothing of it is used before its checksum was found right.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::formats::backup::{BackupError, Checker, HEADER_LEN};
use crate::store::UnixSeconds;
use crate::store::backup::{ADMIN_TOKEN, IDENTITY, INDEX, SETTINGS, SMALL_BYTES_MAX, VERSION};
use crate::store::error::StoreError;
use crate::store::layout;

/// What zstd may keep of the past: more than any level that a backup is written with asks for.
const WINDOW_LOG_MAX: u32 = 24;

/// A backup that is whole, taken apart up to its index.
pub(in crate::store::restore) struct Unpacker {
    pub(in crate::store::restore) made_at: UnixSeconds,
    pub(in crate::store::restore) identity: Vec<u8>,
    pub(in crate::store::restore) admin_token: Option<Vec<u8>>,
    pub(in crate::store::restore) settings: Option<Vec<u8>>,
    seed: [u8; 32],
    path: PathBuf,
    index_bytes: u64,
    contents: Contents,
}

type Contents = zstd::stream::read::Decoder<'static, BufReader<File>>;

impl Unpacker {
    /// Reads the backup to its end, and takes out everything but the index.
    pub(in crate::store::restore) fn open(path: &Path) -> Result<Self, StoreError> {
        let (mut file, made_at) = check(path)?;
        let bad = |source: io::Error| StoreError::file("read", path)(source);
        let begin = u64::try_from(HEADER_LEN).map_err(|error| bad(io::Error::other(error)))?;
        file.seek(SeekFrom::Start(begin)).map_err(bad)?;
        let mut contents = Contents::new(file).map_err(bad)?;
        contents.window_log_max(WINDOW_LOG_MAX).map_err(bad)?;
        let (mut version, mut identity, mut admin_token, mut settings) = (None, None, None, None);
        let index_bytes = loop {
            let (name, length) = head(&mut contents).map_err(bad)?;
            let place = match name.as_str() {
                INDEX => break length,
                VERSION => &mut version,
                IDENTITY => &mut identity,
                ADMIN_TOKEN => &mut admin_token,
                SETTINGS => &mut settings,
                _other => return Err(lacks(path, "nothing else than what a backup has")),
            };
            if length > SMALL_BYTES_MAX {
                return Err(lacks(path, "files of a sound size"));
            }
            let mut bytes = Vec::new();
            (&mut contents).take(length).read_to_end(&mut bytes).map_err(bad)?;
            *place = Some(bytes);
        };
        let version = version.as_deref().and_then(layout::parse_version);
        let found = version.ok_or_else(|| lacks(path, "the format of the data folder"))?;
        if found > layout::FORMAT_VERSION {
            return Err(StoreError::NewerBackup { found, ours: layout::FORMAT_VERSION });
        }
        let identity = identity.ok_or_else(|| lacks(path, "the identity of a box"))?;
        let seed = layout::parse_seed(&identity);
        let seed = seed.ok_or_else(|| lacks(path, "a sound identity of a box"))?;
        let path = path.to_owned();
        Ok(Self { made_at, identity, admin_token, settings, seed, path, index_bytes, contents })
    }

    pub(in crate::store::restore) const fn seed(&self) -> [u8; 32] {
        self.seed
    }

    /// Writes the index to a new file, which only its owner may read.
    pub(in crate::store::restore) fn index_to(&mut self, to: &Path) -> Result<(), StoreError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(to).map_err(StoreError::file("make", to))?;
        let mut index = (&mut self.contents).take(self.index_bytes);
        let copied = io::copy(&mut index, &mut file)
            .and_then(|copied| file.flush().and_then(|()| file.sync_all()).map(|()| copied));
        match copied.map_err(StoreError::file("write", to))? {
            copied if copied == self.index_bytes => Ok(()),
            _fewer => Err(lacks(&self.path, "the whole index")),
        }
    }
}

/// Reads all of a backup; the open file, and when it was made.
fn check(path: &Path) -> Result<(File, UnixSeconds), StoreError> {
    let mut file = File::open(path).map_err(StoreError::file("open", path))?;
    let mut checker = Checker::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(StoreError::file("read", path))? {
            0 => break,
            read => checker.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    let checked = checker.finish();
    let bad = |source: BackupError| StoreError::BadBackup { path: path.to_owned(), source };
    checked.map(|made_at| (file, made_at)).map_err(bad)
}

/// Name and length of what comes next.
fn head(contents: &mut Contents) -> io::Result<(String, u64)> {
    let mut length = [0];
    contents.read_exact(&mut length)?;
    let mut name = vec![0; usize::from(length[0])];
    contents.read_exact(&mut name)?;
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    if name.is_empty() {
        return Ok((name, 0));
    }
    let mut length = [0; 8];
    contents.read_exact(&mut length)?;
    Ok((name, u64::from_le_bytes(length)))
}

fn lacks(path: &Path, what: &'static str) -> StoreError {
    StoreError::BackupLacks { path: path.to_owned(), what }
}
