//! Build logs that Nix kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bzip2::read::MultiBzDecoder;

use crate::client::nix_store::location::Location;
use crate::formats::StorePath;

/// What a build of `derivation` wrote, if that is kept here and has at most `max_bytes`. Blocking.
///
/// Nix keeps it as `drvs/XX/REST`, XX being the first two letters of the derivation's base name,
/// compressed by bzip2 unless told otherwise (`LocalFSStore::getBuildLogExact` in
/// `src/libstore/local-fs-store.cc`, Nix 2.34; in `local-fs-store.cc` of 2.8 too).
///
/// # Errors
///
/// Those of the file, or of what is compressed in it.
pub fn build_log(
    location: &Location,
    derivation: &StorePath,
    max_bytes: u32,
) -> io::Result<Option<Vec<u8>>> {
    let Some(path) = path_of(location, derivation) else { return Ok(None) };
    if let Some(file) = open(&path)? {
        return bounded(file, max_bytes);
    }
    let mut compressed = path.into_os_string();
    compressed.push(".bz2");
    match open(&PathBuf::from(compressed))? {
        Some(file) => bounded(MultiBzDecoder::new(file), max_bytes),
        None => Ok(None),
    }
}

fn path_of(location: &Location, derivation: &StorePath) -> Option<PathBuf> {
    let (first, rest) = derivation.base_name().split_at_checked(2)?;
    Some(location.logs().join("drvs").join(first).join(rest))
}

fn open(path: &PathBuf) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn bounded(log: impl Read, max_bytes: u32) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    log.take(u64::from(max_bytes) + 1).read_to_end(&mut bytes)?;
    let fits = u32::try_from(bytes.len()).is_ok_and(|length| length <= max_bytes);
    Ok(fits.then_some(bytes))
}
