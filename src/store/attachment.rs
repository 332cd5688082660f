//! Attachments: into a pack with one record, and out again. The first one of a name stays.

use tracing::warn;

use crate::formats::AttachmentName;
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::caches::CacheId;
use crate::store::index::{attachments, caches};
use crate::store::pack::{Kind, Location, PackReader, Wanted, payload};

/// The contents of an attachment, compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Bytes of the contents.
    pub raw_len: u32,
    /// The contents as one zstd frame.
    pub zstd: Vec<u8>,
}

/// Writes an attachment, unless there is a sound one of that name; whether it did.
pub(in crate::store) fn commit(
    group: &Group<'_>,
    cache: CacheId,
    name: AttachmentName,
    contents: Attachment,
) -> Result<bool, StoreError> {
    let uuid = caches::uuid(group.tx, cache)?;
    let known = attachments::find(group.tx, cache, &name)?;
    if known.is_some_and(|at| read(&group.shared.packs, at).is_some()) {
        return Ok(false);
    }
    let Attachment { raw_len, zstd } = contents;
    let record = payload::Attachment { cache: uuid, name: name.clone(), raw_len, zstd };
    let at = group.append(Kind::Attachment, &payload::encode(&record)?)?;
    attachments::put(group.tx, cache, &name, at)?;
    Ok(true)
}

/// Reads the attachment whose record is at `at`; nothing where that is damaged: nobody is helped
/// by an error, and who has it can push it again.
pub(in crate::store) fn read(packs: &PackReader, at: Location) -> Option<Attachment> {
    let record = packs.read(Wanted { kind: Kind::Attachment, location: at, id: None });
    let decoded = record.and_then(|record| payload::decode::<payload::Attachment>(&record));
    match decoded {
        Ok(payload::Attachment { raw_len, zstd, .. }) => Some(Attachment { raw_len, zstd }),
        Err(error) => {
            warn!(%error, pack = at.pack, offset = at.offset, "An attachment is damaged");
            None
        }
    }
}
