//! The data folder: names of its files, its lock, its version, the identity of the box.
//!
//! FORMAT.md draws it. A folder is made in this order, so that one that was cut off half-way is
//! finished by the next start: `LOCK`, `tmp/`, `packs/`, `identity.key`, `VERSION` last.

use std::fs;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};

use crate::store::error::StoreError;
use crate::store::pack;

/// The version of the data folder that this program writes.
pub(in crate::store) const FORMAT_VERSION: u32 = 5;
/// The oldest one that is brought up to it. Packs of 2 have no attachments, those of 2 and 3 no
/// pins and no records that were moved; nothing else differs.
const FORMAT_VERSION_MIN: u32 = 2;

const VERSION_PREFIX: &str = "larder data folder ";
const VERSION_BYTES_MAX: u64 = 64;
const SEED_LEN_BYTES: usize = 32;

/// Files and folders of a data folder; anything else in a folder without `VERSION` means that it
/// is somebody else's.
const OWN_NAMES: [&str; 6] = ["LOCK", "VERSION", "identity.key", "packs", "tmp", "admin.token"];

/// An open data folder. The lock is held until this is dropped.
#[derive(Debug)]
pub(in crate::store) struct Folder {
    root: PathBuf,
    identity_seed: [u8; SEED_LEN_BYTES],
    lock: Mutex<Option<File>>,
}

impl Folder {
    /// Opens `root`, or makes it; the parent must exist.
    pub(in crate::store) fn open(root: &Path) -> Result<Self, StoreError> {
        make_folder(root)?;
        let lock = lock(root)?;
        let seed = match read_version(root)? {
            Some(()) => read_seed(root)?
                .ok_or_else(|| StoreError::IdentityMissing { path: root.join("identity.key") })?,
            None => make(root)?,
        };
        empty(&root.join("tmp"))?;
        Ok(Self { root: root.to_owned(), identity_seed: seed, lock: Mutex::new(Some(lock)) })
    }

    /// Opens `root`, or makes it, for a restore that brings the identity `seed` along: a folder
    /// that has packs and nothing else is as good as any.
    pub(in crate::store) fn claim(
        root: &Path,
        seed: [u8; SEED_LEN_BYTES],
    ) -> Result<Self, StoreError> {
        make_folder(root)?;
        let lock = lock(root)?;
        if read_version(root)?.is_none() {
            check_own(root, |name| name.starts_with("larder.") || name.contains(".before-"))?;
        }
        empty(&root.join("tmp"))?;
        make_folder(&root.join("packs"))?;
        Ok(Self { root: root.to_owned(), identity_seed: seed, lock: Mutex::new(Some(lock)) })
    }

    pub(in crate::store) fn identity_seed(&self) -> [u8; SEED_LEN_BYTES] {
        self.identity_seed
    }

    /// Lets another process open the folder; nothing may be written any more.
    pub(in crate::store) fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(in crate::store) fn root(&self) -> &Path {
        &self.root
    }

    /// Files in the making; emptied when the folder is opened.
    pub(in crate::store) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(in crate::store) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    /// The file of a pack.
    pub(in crate::store) fn pack(&self, number: u32) -> PathBuf {
        pack::path_of(&self.packs(), number)
    }

    pub(in crate::store) fn index(&self) -> PathBuf {
        self.root.join("larder.db")
    }

    /// The index as it was before its tables were last changed.
    pub(in crate::store) fn index_before_migration(&self) -> PathBuf {
        self.root.join("larder.db.before-migration")
    }

    /// An index in the making; thrown away when it is met at a start.
    pub(in crate::store) fn index_rebuilding(&self) -> PathBuf {
        self.root.join("larder.db.rebuilding")
    }

    /// A finished index that waits to take the place of the old one.
    pub(in crate::store) fn index_rebuilt(&self) -> PathBuf {
        self.root.join("larder.db.rebuilt")
    }

    /// Where a rebuild leaves the index that it replaced.
    pub(in crate::store) fn index_before_rebuild(&self) -> PathBuf {
        self.root.join("larder.db.before-rebuild")
    }
}

/// Fills `bytes` with what nobody can guess.
fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    SystemRandom::new().fill(bytes).map_err(|_unspecified| StoreError::NoRandomness)
}

/// A random UUID (RFC 9562, version 4).
pub(in crate::store) fn new_uuid() -> Result<[u8; 16], StoreError> {
    let mut uuid = [0; 16];
    random(&mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// Makes what was renamed, created or removed in `folder` survive a loss of power.
pub(in crate::store) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let file = File::open(folder).map_err(StoreError::file("open", folder))?;
    file.sync_all().map_err(StoreError::file("sync", folder))
}

/// Makes `path` if it is missing, readable by its owner alone.
pub(in crate::store) fn touch_private(path: &Path) -> Result<(), StoreError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map(drop).map_err(StoreError::file("make", path))
}

/// Makes a folder that is there after a loss of power, unless it is there already.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            // Who finds it takes it for safe; so the next try has to make it again.
            sync_folder(parent.unwrap_or(Path::new("."))).inspect_err(|_error| {
                let _found_next_time = fs::remove_dir(path);
            })
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::file("make", path)(error)),
    }
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("LOCK");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(StoreError::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { folder: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::file("lock", &path)(source)),
    }
}

/// `None` if the folder has no `VERSION` yet; an older one is brought up to ours.
fn read_version(root: &Path) -> Result<Option<()>, StoreError> {
    let path = root.join("VERSION");
    let Some(text) = read_small(&path, VERSION_BYTES_MAX)? else { return Ok(None) };
    match parse_version(&text) {
        Some(FORMAT_VERSION) => Ok(Some(())),
        Some(found) if (FORMAT_VERSION_MIN..FORMAT_VERSION).contains(&found) => {
            // Before anything is written that an older program would take for damage.
            make_folder(&root.join("tmp"))?;
            write_whole(root, "VERSION.before-migration", &text)?;
            write_version(root).map(Some)
        }
        Some(found) if found > FORMAT_VERSION => {
            Err(StoreError::NewerFormat { found, ours: FORMAT_VERSION })
        }
        Some(found) => Err(StoreError::OlderFormat { found, ours: FORMAT_VERSION }),
        None => Err(StoreError::BadVersion { path }),
    }
}

/// The number that `VERSION` says, if it says one.
pub(in crate::store) fn parse_version(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.strip_prefix(VERSION_PREFIX)?.strip_suffix('\n')?.parse().ok()
}

fn read_seed(root: &Path) -> Result<Option<[u8; SEED_LEN_BYTES]>, StoreError> {
    let path = root.join("identity.key");
    let Some(text) = read_small(&path, 256)? else { return Ok(None) };
    parse_seed(&text).map(Some).ok_or(StoreError::BadIdentity { path })
}

/// The seed that `identity.key` says, if it says one.
pub(in crate::store) fn parse_seed(text: &[u8]) -> Option<[u8; SEED_LEN_BYTES]> {
    HEXLOWER.decode(text.trim_ascii_end()).ok()?.try_into().ok()
}

/// Reads a file of at most `bytes_max`; a longer one comes back cut off, which no parser takes.
pub(in crate::store) fn read_small(
    path: &Path,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::file("open", path)(error)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max), &mut bytes)
        .map_err(StoreError::file("read", path))?;
    Ok(Some(bytes))
}

/// Fails if there is anything in `root` that is not a data folder's, nor `also`.
fn check_own(root: &Path, also: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for entry in fs::read_dir(root).map_err(StoreError::file("list", root))? {
        let name = entry.map_err(StoreError::file("list", root))?.file_name();
        let is_own = OWN_NAMES.iter().any(|own| name == *own) || name.to_str().is_some_and(&also);
        if !is_own {
            return Err(StoreError::NotADataFolder { folder: root.to_owned(), found: name });
        }
    }
    Ok(())
}

fn make(root: &Path) -> Result<[u8; SEED_LEN_BYTES], StoreError> {
    check_own(root, |_other| false)?;
    make_folder(&root.join("tmp"))?;
    make_folder(&root.join("packs"))?;
    let seed = match read_seed(root)? {
        Some(seed) => seed,
        None => {
            let mut seed = [0; SEED_LEN_BYTES];
            random(&mut seed)?;
            let text = format!("{}\n", HEXLOWER.encode(&seed));
            write_whole(root, "identity.key", text.as_bytes())?;
            seed
        }
    };
    write_version(root)?;
    Ok(seed)
}

pub(in crate::store) fn write_version(root: &Path) -> Result<(), StoreError> {
    write_whole(root, "VERSION", format!("{VERSION_PREFIX}{FORMAT_VERSION}\n").as_bytes())
}

/// Writes a file of 0600 that is there whole or not at all: beside its place, synced, renamed,
/// the folder synced.
pub(in crate::store) fn write_whole(
    root: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let (beside, path) = (root.join("tmp").join(name), root.join(name));
    write_synced(&beside, bytes)?;
    fs::rename(&beside, &path).map_err(StoreError::file("rename", &path))?;
    sync_folder(root)
}

/// Writes a file of 0600 and syncs it, but not its name.
pub(in crate::store) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(StoreError::file("make", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::file("write", path))
}

fn empty(folder: &Path) -> Result<(), StoreError> {
    make_folder(folder)?;
    for entry in fs::read_dir(folder).map_err(StoreError::file("list", folder))? {
        let path = entry.map_err(StoreError::file("list", folder))?.path();
        fs::remove_file(&path).map_err(StoreError::file("remove", &path))?;
    }
    Ok(())
}
