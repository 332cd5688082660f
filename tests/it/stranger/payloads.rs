//! What the records of kinds 2 to 7 say.

use crate::stranger::postcard::Reader;

/// The version of a payload, but for those of manifests and paths from format 4 on.
const PAYLOAD_VERSION: u8 = 1;
const SECOND_VERSION: u8 = 2;

pub(super) struct ChunkOfNar {
    pub(super) id: [u8; 32],
    pub(super) raw_len: u64,
    pub(super) stored_len: u64,
    /// XXH3-64 of the frame.
    pub(super) sum: Option<[u8; 8]>,
}

pub(super) struct Manifest {
    pub(super) nar_hash: [u8; 32],
    pub(super) nar_size: u64,
    pub(super) revision: u64,
    pub(super) file_hash: [u8; 32],
    pub(super) file_size: u64,
    pub(super) chunks: Vec<ChunkOfNar>,
}

pub(super) struct Listing {
    pub(super) nar_hash: [u8; 32],
    pub(super) json_len: u64,
    pub(super) frame: Vec<u8>,
}

pub(super) struct Cache {
    pub(super) uuid: [u8; 16],
    pub(super) name: String,
    pub(super) public: bool,
    pub(super) self_signed: bool,
    pub(super) priority: u64,
    pub(super) place: Option<u64>,
    pub(super) description: String,
    pub(super) made_at: u64,
    /// Days of retention and bytes of the quota, where the record may have them.
    pub(super) limits: Option<(Option<u64>, Option<u64>)>,
}

pub(super) struct StoredPath {
    pub(super) cache: [u8; 16],
    pub(super) base_name: String,
    pub(super) nar_hash: [u8; 32],
    pub(super) nar_size: u64,
    pub(super) references: Vec<String>,
    pub(super) deriver: Option<String>,
    pub(super) content_address: Option<String>,
    pub(super) signatures: Vec<String>,
    pub(super) revision: u64,
    pub(super) hidden: bool,
    pub(super) pushed_at: u64,
    pub(super) device_key: [u8; 32],
    pub(super) device_signature: Vec<u8>,
}

pub(super) struct Signatures {
    pub(super) cache: [u8; 16],
    pub(super) hash_part: [u8; 20],
    pub(super) signatures: Vec<String>,
}

pub(super) enum Delete {
    Path { cache: [u8; 16], hash_part: [u8; 20] },
    Cache { cache: [u8; 16] },
}

/// Reads a whole payload, its version before its fields.
pub(super) fn read<T>(payload: &[u8], fields: impl FnOnce(&mut Reader) -> T) -> T {
    let mut reader = Reader::new(payload);
    assert_eq!(reader.byte(), PAYLOAD_VERSION);
    let value = fields(&mut reader);
    reader.end();
    value
}

/// Reads a whole payload of a kind of which there are two versions; whether it is the second.
pub(super) fn read_either<T>(payload: &[u8], fields: impl FnOnce(&mut Reader, bool) -> T) -> T {
    let mut reader = Reader::new(payload);
    let version = reader.byte();
    assert!([PAYLOAD_VERSION, SECOND_VERSION].contains(&version));
    let value = fields(&mut reader, version == SECOND_VERSION);
    reader.end();
    value
}

pub(super) fn manifest(reader: &mut Reader, has_sums: bool) -> Manifest {
    Manifest {
        nar_hash: reader.array(),
        nar_size: reader.number(),
        revision: reader.number(),
        file_hash: reader.array(),
        file_size: reader.number(),
        chunks: reader.list(|reader| ChunkOfNar {
            id: reader.array(),
            raw_len: reader.number(),
            stored_len: reader.number(),
            sum: has_sums.then(|| reader.array()),
        }),
    }
}

pub(super) fn listing(reader: &mut Reader) -> Listing {
    Listing { nar_hash: reader.array(), json_len: reader.number(), frame: reader.bytes() }
}

pub(super) fn cache(reader: &mut Reader, has_limits: bool) -> Cache {
    let cache = Cache {
        uuid: reader.array(),
        name: reader.text(),
        public: reader.truth(),
        self_signed: reader.truth(),
        priority: reader.number(),
        place: reader.optional(Reader::number),
        description: reader.text(),
        made_at: reader.number(),
        limits: None,
    };
    let limits =
        has_limits.then(|| (reader.optional(Reader::number), reader.optional(Reader::number)));
    Cache { limits, ..cache }
}

pub(super) fn path(reader: &mut Reader, says_alone: bool) -> StoredPath {
    let path = StoredPath {
        cache: reader.array(),
        base_name: reader.text(),
        nar_hash: reader.array(),
        nar_size: reader.number(),
        references: reader.list(Reader::text),
        deriver: reader.optional(Reader::text),
        content_address: reader.optional(Reader::text),
        signatures: reader.list(Reader::text),
        revision: reader.number(),
        hidden: reader.truth(),
        pushed_at: reader.number(),
        device_key: reader.array(),
        device_signature: reader.bytes(),
    };
    if says_alone {
        // Of use to who reads packs from which records were moved; these have none.
        reader.truth();
    }
    path
}

pub(super) fn signatures(reader: &mut Reader) -> Signatures {
    Signatures {
        cache: reader.array(),
        hash_part: reader.array(),
        signatures: reader.list(Reader::text),
    }
}

pub(super) fn delete(reader: &mut Reader) -> Delete {
    match reader.number() {
        0 => Delete::Path { cache: reader.array(), hash_part: reader.array() },
        1 => Delete::Cache { cache: reader.array() },
        other => panic!("{other} is no kind of delete"),
    }
}
