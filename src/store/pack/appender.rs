//! The one place that writes packs.
//!
//! A record is written at once, in one call, and is safe when a [`sync`](Appender::sync) that
//! began later has returned. A write or sync that fails poisons everything that was not synced:
//! the pack is cut back to where it was synced and closed, a new one is begun, and the *epoch*
//! grows, so that a commit that counted on what was lost fails. A failed sync is never tried
//! again on the same bytes: the system may have dropped them while calling them clean. The epoch
//! grows too when records are [taken back](Appender::take_back).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::error;

use crate::store::pack::record::{
    HeaderKey, PACK_HEADER_LEN, RecordHeader, pack_header, payload_sum,
};
use crate::store::pack::{Kind, Location, PackError, Position, path_of};

/// Appends records to packs.
#[derive(Debug)]
pub(in crate::store) struct Appender {
    folder: PathBuf,
    store: [u8; 16],
    key: HeaderKey,
    pack_bytes_max: u64,
    disk: Box<dyn Disk>,
    state: Mutex<State>,
}

/// A record that was appended.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Appended {
    pub(in crate::store) location: Location,
    /// XXH3-64 of the stored bytes.
    pub(in crate::store) payload_sum: u64,
    /// When this is no longer the appender's epoch, an unsynced record is lost.
    pub(in crate::store) epoch: u64,
}

/// How bytes get to the disk; tests make it fail.
pub(in crate::store) trait Disk: std::fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written to `file` survive a loss of power.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug)]
pub(in crate::store) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

#[derive(Debug)]
struct State {
    open: Option<Open>,
    next_pack: u32,
    /// Packs that are full, and not synced to their end.
    sealed: Vec<Open>,
    /// A file was made since the last sync of the folder.
    folder_dirty: bool,
    epoch: u64,
    closed: bool,
}

#[derive(Debug)]
struct Open {
    pack: u32,
    file: Arc<File>,
    end: u64,
    synced: u64,
}

impl Appender {
    /// Goes on at `end`, the end of the last sound record; what is behind it in that pack is cut
    /// off.
    pub(in crate::store) fn open(
        folder: &Path,
        store: [u8; 16],
        pack_bytes_max: u64,
        end: Position,
        disk: Box<dyn Disk>,
    ) -> Result<Self, PackError> {
        let mut state = State {
            open: None,
            next_pack: end.pack.max(1),
            sealed: Vec::new(),
            folder_dirty: false,
            epoch: 1,
            closed: false,
        };
        if end.offset >= PACK_HEADER_LEN {
            let path = path_of(folder, end.pack);
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(PackError::file("open", &path))?;
            file.set_len(end.offset)
                .and_then(|()| file.sync_all())
                .map_err(PackError::file("cut", &path))?;
            let (end, synced) = (end.offset, end.offset);
            state.open = Some(Open { pack: state.next_pack, file: Arc::new(file), end, synced });
            state.next_pack += 1;
        }
        let folder = folder.to_owned();
        let key = HeaderKey::of(store);
        Ok(Self { folder, store, key, pack_bytes_max, disk, state: Mutex::new(state) })
    }

    /// Grows when records that were appended and not synced are lost.
    pub(in crate::store) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Where the next record will be, or a place before it.
    pub(in crate::store) fn position(&self) -> Position {
        self.lock().position()
    }

    /// Writes a record. `id` is BLAKE3 of the raw bytes.
    pub(in crate::store) fn append(
        &self,
        kind: Kind,
        id: [u8; 32],
        raw_len: u32,
        payload: &[u8],
    ) -> Result<Appended, PackError> {
        self.append_if(|_state| true, kind, id, raw_len, payload)
    }

    /// As [`append`](Self::append), unless `epoch` has passed.
    ///
    /// # Errors
    ///
    /// [`PackError::Lost`] if it has; nothing was written then.
    pub(in crate::store) fn append_in(
        &self,
        epoch: u64,
        kind: Kind,
        id: [u8; 32],
        raw_len: u32,
        payload: &[u8],
    ) -> Result<Appended, PackError> {
        self.append_if(|state| state.epoch == epoch, kind, id, raw_len, payload)
    }

    fn append_if(
        &self,
        may: impl FnOnce(&State) -> bool,
        kind: Kind,
        id: [u8; 32],
        raw_len: u32,
        payload: &[u8],
    ) -> Result<Appended, PackError> {
        let too_large = || PackError::TooLarge(payload.len());
        if payload.len() > kind.stored_len_max() {
            return Err(too_large());
        }
        let stored_len = u32::try_from(payload.len()).map_err(|_width| too_large())?;
        let payload_sum = payload_sum(payload);
        let header = RecordHeader { kind, stored_len, raw_len, id, payload_sum };
        let mut state = self.lock();
        if state.closed {
            return Err(PackError::Closed);
        }
        if !may(&state) {
            return Err(PackError::Lost);
        }
        let written = self.write(&mut state, header, payload);
        if written.is_err() {
            self.poison(&mut state);
        }
        let location = written?;
        Ok(Appended { location, payload_sum, epoch: state.epoch })
    }

    /// Takes back every record behind `to`, also those that were synced, and all that was not
    /// synced; the next record begins a pack. If there is nothing behind `to`, nothing is done.
    ///
    /// # Errors
    ///
    /// Some records may still be there; to be called again with the same position.
    pub(in crate::store) fn take_back(&self, to: Position) -> Result<(), PackError> {
        let mut state = self.lock();
        if state.position() <= to {
            return Ok(());
        }
        self.poison(&mut state);
        for pack in to.pack..state.next_pack {
            let end = if pack == to.pack { to.offset } else { 0 };
            self.cut(pack, end.max(PACK_HEADER_LEN))?;
        }
        Ok(())
    }

    /// Has the next record begin a pack.
    pub(in crate::store) fn end_pack(&self) {
        let mut state = self.lock();
        let open = state.open.take();
        state.sealed.extend(open);
    }

    /// Lets nothing more be appended.
    pub(in crate::store) fn close(&self) {
        self.lock().closed = true;
    }

    /// Makes every record that was appended before survive a loss of power.
    ///
    /// # Errors
    ///
    /// [`PackError::Lost`] if `epoch` has passed, so that some of them are gone.
    pub(in crate::store) fn sync(&self, epoch: u64) -> Result<(), PackError> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Err(PackError::Lost);
        }
        let reached: Vec<_> =
            state.unsynced().map(|open| (open.pack, open.end, Arc::clone(&open.file))).collect();
        let folder_dirty = std::mem::take(&mut state.folder_dirty);
        drop(state);

        let synced = self.sync_files(reached.iter().map(|(.., file)| &**file), folder_dirty);

        let mut state = self.lock();
        if synced.is_err() {
            self.poison(&mut state);
        }
        synced?;
        if state.epoch != epoch {
            return Err(PackError::Lost);
        }
        for (pack, end, _file) in reached {
            state.unsynced().filter(|open| open.pack == pack).for_each(|open| open.synced = end);
        }
        state.sealed.retain(|sealed| sealed.end > sealed.synced);
        Ok(())
    }

    fn sync_files<'a>(
        &self,
        files: impl Iterator<Item = &'a File>,
        folder_dirty: bool,
    ) -> Result<(), PackError> {
        for file in files {
            self.disk.sync(file).map_err(PackError::file("sync a pack in", &self.folder))?;
        }
        if folder_dirty {
            let folder = File::open(&self.folder);
            let folder = folder.map_err(PackError::file("open", &self.folder))?;
            self.disk.sync(&folder).map_err(PackError::file("sync", &self.folder))?;
        }
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        header: RecordHeader,
        payload: &[u8],
    ) -> Result<Location, PackError> {
        let length = 64 + u64::from(header.stored_len);
        let full =
            |open: &Open| open.end > PACK_HEADER_LEN && open.end + length > self.pack_bytes_max;
        if state.open.as_ref().is_some_and(full)
            && let Some(open) = state.open.take()
        {
            state.sealed.push(open);
        }
        let open = match &mut state.open {
            Some(open) => open,
            None => {
                let open = self.begin(state.next_pack)?;
                state.next_pack += 1;
                state.folder_dirty = true;
                state.open.insert(open)
            }
        };
        let location =
            Location { pack: open.pack, offset: open.end, stored_len: header.stored_len };
        let mut bytes = Vec::with_capacity(64 + payload.len());
        bytes.extend_from_slice(&header.to_bytes(&self.key, open.pack, open.end));
        bytes.extend_from_slice(payload);
        let written = self.disk.write(&open.file, &bytes, open.end);
        written.map_err(PackError::file("write", &path_of(&self.folder, open.pack)))?;
        open.end += length;
        Ok(location)
    }

    fn begin(&self, pack: u32) -> Result<Open, PackError> {
        let path = path_of(&self.folder, pack);
        let mut options = OpenOptions::new();
        // Truncate: a pack of this number can only be one that was begun and never got a record.
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(PackError::file("make", &path))?;
        let header = pack_header(pack, self.store);
        self.disk.write(&file, &header, 0).map_err(PackError::file("write", &path))?;
        Ok(Open { pack, file: Arc::new(file), end: PACK_HEADER_LEN, synced: 0 })
    }

    /// Makes a pack no longer than `end`.
    fn cut(&self, pack: u32, end: u64) -> Result<(), PackError> {
        let path = path_of(&self.folder, pack);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(PackError::file("open", &path))?;
        let length = file.metadata().map_err(PackError::file("look at", &path))?.len();
        if length > end {
            file.set_len(end).map_err(PackError::file("cut", &path))?;
        }
        self.disk.sync(&file).map_err(PackError::file("sync", &path))
    }

    fn poison(&self, state: &mut State) {
        state.epoch += 1;
        for open in state.sealed.drain(..).chain(state.open.take()) {
            error!(
                pack = open.pack,
                synced = open.synced,
                "A pack is closed, with what is synced of it"
            );
            // Only so that nothing is met there later; whoever counts on it is told by the epoch.
            if let Err(error) = open.file.set_len(open.synced) {
                error!(pack = open.pack, error = %error, "The pack's unsynced end stays behind");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn position(&self) -> Position {
        match &self.open {
            Some(open) => Position { pack: open.pack, offset: open.end },
            None => Position { pack: self.next_pack, offset: 0 },
        }
    }

    fn unsynced(&mut self) -> impl Iterator<Item = &mut Open> {
        self.sealed.iter_mut().chain(&mut self.open).filter(|open| open.end > open.synced)
    }
}
