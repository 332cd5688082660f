//! Pins, for those who hold the store: made, listed, removed, ended.

use crate::formats::{FilePath, Keep, PinName, StorePath};
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::caches::CacheId;
use crate::store::index::pins::{Pin, PinPlace};
use crate::store::index::tokens::TokenId;
use crate::store::index::{caches, paths, pins};
use crate::store::pack::{Kind, payload};
use crate::store::{Store, UnixSeconds};

/// A pin to be made.
#[derive(Clone, Debug)]
pub struct NewPin {
    /// The cache.
    pub cache: CacheId,
    /// The pin's name.
    pub name: PinName,
    /// The path that it is to hold.
    pub path: StorePath,
    /// Files of the path that are to have a URL; whether they are there is the caller's to check.
    pub artifacts: Vec<FilePath>,
    /// How long revisions of that name stay.
    pub keep: Keep,
    /// The token that it is made with.
    pub token: TokenId,
    /// Now.
    pub at: UnixSeconds,
}

/// What became of a pin that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// It is made.
    Made(Pin),
    /// The cache does not have the path.
    NoSuchPath,
    /// The cache has the path, hidden: it waits for what it refers to.
    Hidden,
}

/// What is written fails with [`StoreError::CommitFailed`] and the like, what is read with
/// [`StoreError::Index`] or [`StoreError::BadRow`].
#[expect(clippy::missing_errors_doc, reason = "the lines above say it for all")]
impl Store {
    /// Makes a revision of a pin, if the path is visible in the cache; those that are too many
    /// by [`Keep::Revisions`] end with it. [`StoreError::NoSuchCache`] if the cache was deleted.
    pub async fn pin(&self, new: NewPin) -> Result<PinOutcome, StoreError> {
        self.0.writer.run(move |group| make(group, &new)).await
    }

    /// Revisions of pins of a cache behind `after`: by name, of each the newest first; at most
    /// `limit`.
    pub async fn pins(
        &self,
        cache: CacheId,
        after: Option<PinPlace>,
        limit: u32,
    ) -> Result<Vec<Pin>, StoreError> {
        let read = move |connection: &_| pins::page(connection, cache, after.as_ref(), limit);
        self.0.readers.run(read).await
    }

    /// The newest revision of a pin.
    pub async fn newest_pin(
        &self,
        cache: CacheId,
        name: PinName,
    ) -> Result<Option<Pin>, StoreError> {
        self.0.readers.run(move |connection| pins::newest(connection, cache, &name)).await
    }

    /// Removes a pin; how many revisions it had. 0: there is none.
    pub async fn remove_pin(&self, cache: CacheId, name: PinName) -> Result<usize, StoreError> {
        self.0.writer.run(move |group| remove(group, cache, &name)).await
    }

    /// Ends the revisions whose days are over; how many there were. To be called only where `now`
    /// can be believed.
    pub async fn expire_pins(&self, now: UnixSeconds) -> Result<usize, StoreError> {
        self.0.writer.run(move |group| expire(group, now)).await
    }
}

fn make(group: &Group<'_>, new: &NewPin) -> Result<PinOutcome, StoreError> {
    let uuid = caches::uuid(group.tx, new.cache)?;
    let standing = paths::standing(group.tx, new.cache, new.path.hash())?;
    match standing.filter(|standing| standing.base_name == new.path.base_name()) {
        None => return Ok(PinOutcome::NoSuchPath),
        Some(standing) if !standing.visible => return Ok(PinOutcome::Hidden),
        Some(_visible) => {}
    }
    group.shared.barrier.note(new.cache, new.path.hash());
    let last = pins::last_number(group.tx, new.cache, &new.name)?;
    let pin = Pin {
        name: new.name.clone(),
        revision: last.checked_add(1).ok_or(StoreError::BadRow("revision of a pin"))?,
        path: new.path.clone(),
        artifacts: new.artifacts.clone(),
        keep: new.keep,
        pinned_at: new.at,
        token: new.token,
    };
    let record = payload::Pin::Made {
        cache: uuid,
        name: pin.name.clone(),
        revision: pin.revision,
        path: pin.path.clone(),
        artifacts: pin.artifacts.clone(),
        keep: pin.keep,
        pinned_at: pin.pinned_at,
    };
    pins::put(group.tx, new.cache, &pin)?;
    group.append(Kind::Pin, &payload::encode(&record)?)?;
    if let Keep::Revisions(count) = new.keep
        && let up_to @ 1.. = pin.revision.saturating_sub(count.get())
    {
        end(group, new.cache, &new.name, up_to)?;
    }
    Ok(PinOutcome::Made(pin))
}

fn remove(group: &Group<'_>, cache: CacheId, name: &PinName) -> Result<usize, StoreError> {
    match pins::newest(group.tx, cache, name)? {
        Some(newest) => end(group, cache, name, newest.revision),
        None => Ok(0),
    }
}

/// Ends the revisions whose days are over by `now`; how many there were.
pub(in crate::store) fn expire(group: &Group<'_>, now: UnixSeconds) -> Result<usize, StoreError> {
    let mut count = 0;
    for (cache, name, up_to) in pins::outlived(group.tx, now)? {
        count += end(group, cache, &name, up_to)?;
    }
    Ok(count)
}

/// Ends revisions up to this one; no record where there are none.
fn end(group: &Group<'_>, cache: CacheId, name: &PinName, up_to: u32) -> Result<usize, StoreError> {
    let count = pins::end(group.tx, cache, name, up_to)?;
    if count > 0 {
        let cache = caches::uuid(group.tx, cache)?;
        let record = payload::Pin::Ended { cache, name: name.clone(), up_to };
        group.append(Kind::Pin, &payload::encode(&record)?)?;
    }
    Ok(count)
}
