//! The SQLite index: a cache of the packs, and the home of secret keys and tokens.

pub(in crate::store) mod attachments;
pub(in crate::store) mod cache_chunks;
pub(in crate::store) mod caches;
pub(in crate::store) mod chunks;
pub(in crate::store) mod damage;
pub(in crate::store) mod db;
pub(in crate::store) mod emptied;
pub(in crate::store) mod keys;
pub(in crate::store) mod log;
pub(in crate::store) mod meta;
pub(in crate::store) mod nars;
pub(in crate::store) mod numbers;
pub(in crate::store) mod paths;
pub(in crate::store) mod pins;
pub(in crate::store) mod prefixes;
pub(in crate::store) mod replay_state;
pub(in crate::store) mod sight;
pub(in crate::store) mod tokens;
pub(in crate::store) mod uploads;
pub(in crate::store) mod use_days;
pub(in crate::store) mod visibility;
