-- The index: a cache of the packs, beside what must never go into a pack (secret keys, tokens).
-- FORMAT.md has a paragraph for each table.

-- store: UUID; position: 4 bytes pack number, 8 bytes offset, both little-endian.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE caches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    is_public INTEGER NOT NULL,
    self_signed INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    root_position INTEGER,
    description TEXT NOT NULL,
    created_at INTEGER NOT NULL
);

-- Secret keys of managed caches, in the order in which they were made. Only here, never in packs.
CREATE TABLE cache_keys (
    number INTEGER PRIMARY KEY,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    secret TEXT NOT NULL
);
CREATE INDEX cache_keys_by_cache ON cache_keys (cache);

-- Keys by which paths of a self-signed cache must be signed.
CREATE TABLE cache_public_keys (
    number INTEGER PRIMARY KEY,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    key TEXT NOT NULL
);
CREATE INDEX cache_public_keys_by_cache ON cache_public_keys (cache);

CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    secret_hash BLOB NOT NULL UNIQUE,
    label TEXT NOT NULL,
    is_personal INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER
);

-- rights: 1 read, 2 write, 3 both.
CREATE TABLE token_grants (
    token INTEGER NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    rights INTEGER NOT NULL,
    PRIMARY KEY (token, cache)
) WITHOUT ROWID;

-- chunks: numbers of its chunks in order, each as the zigzag LEB128 of the difference to the one
-- before plus one. damaged: 1 while one of its chunks is in `damage`. stale: 1 while frames were
-- replaced and file_hash, file_size and revision do not yet tell it.
CREATE TABLE nars (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    nar_hash BLOB NOT NULL UNIQUE,
    nar_size INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    file_hash BLOB NOT NULL,
    file_size INTEGER NOT NULL,
    chunks BLOB NOT NULL,
    listing_pack INTEGER,
    listing_offset INTEGER,
    listing_len INTEGER,
    damaged INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX nars_in_trouble ON nars (id) WHERE damaged OR stale;

-- refs: base names, joined by spaces, in Nix's order. signatures: joined by spaces.
CREATE TABLE paths (
    cache INTEGER NOT NULL,
    hash BLOB NOT NULL,
    base_name TEXT NOT NULL,
    nar INTEGER NOT NULL,
    refs TEXT NOT NULL,
    deriver TEXT,
    ca TEXT,
    signatures TEXT NOT NULL,
    visible INTEGER NOT NULL,
    pushed_at INTEGER NOT NULL,
    token INTEGER NOT NULL,
    device_key BLOB NOT NULL,
    device_signature BLOB NOT NULL,
    PRIMARY KEY (cache, hash)
) WITHOUT ROWID;
CREATE INDEX paths_by_nar ON paths (nar);

-- Hidden paths and what each still waits for.
CREATE TABLE waiting (
    cache INTEGER NOT NULL,
    missing BLOB NOT NULL,
    path BLOB NOT NULL,
    PRIMARY KEY (cache, missing, path)
) WITHOUT ROWID;
CREATE INDEX waiting_by_path ON waiting (cache, path);

-- Chunks that no manifest refers to yet: number, whose they are (0: nobody's), since when.
CREATE TABLE uploads (
    number INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,
    at INTEGER NOT NULL
);

-- Chunks whose bytes on disk are not what was written.
CREATE TABLE damage (
    number INTEGER PRIMARY KEY
);
