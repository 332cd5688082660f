//! The outside of a backup: what it begins with, and the end by which a cut-short or changed one
//! is known. FORMAT.md, *A backup*, draws it.

/// The first bytes of a backup.
const MAGIC: &[u8; 8] = b"LARDBACK";
/// The first bytes of its end.
const END_MAGIC: &[u8; 8] = b"LARDBEND";
/// The version of backups that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// Bytes of the header: magic, version, when it was made.
pub const HEADER_LEN: usize = 20;
/// Bytes of the end: magic, bytes before it, BLAKE3 of these bytes, of the magic and of the number.
pub const END_LEN: usize = 48;

/// Why bytes are no backup that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Something else than a backup.
    #[error("it is no backup of larder")]
    NoBackup,
    /// A later larder made it.
    #[error(
        "it has format {found}, and this larder reads backups of format {ours}; use the larder \
         that made it, or a newer one"
    )]
    Newer {
        /// What it says.
        found: u32,
        /// What this program reads.
        ours: u32,
    },
    /// Its end is missing.
    #[error("it is cut short: its end is missing; copy it again, or use another one")]
    CutShort,
    /// Its bytes are not the ones that were written.
    #[error("it is damaged: its checksum is wrong; copy it again, or use another one")]
    Damaged,
}

/// The header of a backup that was made at `made_at`, in seconds since 1970.
#[must_use]
pub fn header(made_at: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&made_at.to_le_bytes());
    header
}

/// When a backup with this header was made, in seconds since 1970.
///
/// # Errors
///
/// [`BackupError::NoBackup`] or [`BackupError::Newer`].
pub fn made_at(header: &[u8; HEADER_LEN]) -> Result<u64, BackupError> {
    let [m @ .., _, _, _, _, _, _, _, _, _, _, _, _] = header;
    let [_, _, _, _, _, _, _, _, a, b, c, d, made_at @ ..] = header;
    if m != MAGIC {
        return Err(BackupError::NoBackup);
    }
    match u32::from_le_bytes([*a, *b, *c, *d]) {
        VERSION => Ok(u64::from_le_bytes(*made_at)),
        found => Err(BackupError::Newer { found, ours: VERSION }),
    }
}

/// Sums up what is written, for the end.
#[derive(Clone, Debug, Default)]
pub struct Sealer {
    hasher: blake3::Hasher,
    length: u64,
}

impl Sealer {
    /// Takes what was written next, the header first.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    }

    /// The end that belongs behind what was written.
    #[must_use]
    pub fn end(mut self) -> [u8; END_LEN] {
        let length = self.length.to_le_bytes();
        self.hasher.update(END_MAGIC).update(&length);
        let mut end = [0; END_LEN];
        end[..8].copy_from_slice(END_MAGIC);
        end[8..16].copy_from_slice(&length);
        end[16..].copy_from_slice(self.hasher.finalize().as_bytes());
        end
    }
}

/// Takes the bytes of a backup as they come, and says whether it is whole.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    sealer: Sealer,
    /// The last bytes, which may be the end.
    last: Vec<u8>,
    header: Vec<u8>,
}

impl Checker {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let more = HEADER_LEN.saturating_sub(self.header.len()).min(bytes.len());
        self.header.extend(bytes.iter().take(more));
        self.last.extend_from_slice(bytes);
        let sure = self.last.len().saturating_sub(END_LEN);
        self.sealer.update(self.last.get(..sure).unwrap_or_default());
        self.last.drain(..sure);
    }

    /// When the backup was made, in seconds since 1970, if all of it came.
    ///
    /// # Errors
    ///
    /// [`BackupError`] says what it is instead.
    pub fn finish(self) -> Result<u64, BackupError> {
        let Ok(header) = <[u8; HEADER_LEN]>::try_from(self.header.as_slice()) else {
            let is_begun = !self.header.is_empty() && MAGIC.starts_with(&self.header)
                || self.header.starts_with(MAGIC);
            return Err(if is_begun { BackupError::CutShort } else { BackupError::NoBackup });
        };
        let made_at = made_at(&header)?;
        if !self.last.starts_with(END_MAGIC) {
            return Err(BackupError::CutShort);
        }
        if self.last != self.sealer.end() {
            return Err(BackupError::Damaged);
        }
        Ok(made_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(contents: &[u8]) -> Vec<u8> {
        let mut bytes = header(7).to_vec();
        bytes.extend_from_slice(contents);
        let mut sealer = Sealer::default();
        sealer.update(&bytes);
        bytes.extend(sealer.end());
        bytes
    }

    fn checked(bytes: &[u8], step: usize) -> Result<u64, BackupError> {
        let mut checker = Checker::default();
        bytes.chunks(step.max(1)).for_each(|part| checker.update(part));
        checker.finish()
    }

    #[test]
    fn what_is_no_backup_is_told_apart() {
        assert_eq!(checked(b"", 1), Err(BackupError::NoBackup));
        assert_eq!(checked(b"SQLite format 3 and more", 5), Err(BackupError::NoBackup));
        let mut newer = sealed(b"x");
        newer[8] = 2;
        assert_eq!(checked(&newer, 7), Err(BackupError::Newer { found: 2, ours: 1 }));
    }

    proptest! {
        #[test]
        fn a_backup_is_good_only_as_it_was_written(
            contents in proptest::collection::vec(any::<u8>(), 0..300),
            step in 1_usize..400,
            place in any::<proptest::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let whole = sealed(&contents);
            prop_assert_eq!(checked(&whole, step), Ok(7));
            let cut = place.index(whole.len());
            prop_assert!(checked(&whole[..cut], step).is_err());
            let mut longer = whole.clone();
            longer.push(0);
            prop_assert!(checked(&longer, step).is_err());
            let mut changed = whole;
            changed[cut] ^= 1 << bit;
            prop_assert!(checked(&changed, step).is_err());
        }
    }
}
