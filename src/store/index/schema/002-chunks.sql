-- Every stored chunk, in the order in which it came: rows are only ever appended, so a chunk
-- costs its own bytes and no page of its own.
CREATE TABLE chunks (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    stored_len INTEGER NOT NULL,
    raw_len INTEGER NOT NULL,
    sum INTEGER NOT NULL
);

-- The way from a chunk's ID to its number. prefix: the first 8 bytes of the ID, big-endian.
-- Filled a slice of the prefixes at a time; what is not here yet is kept in memory, and found
-- again at a start by `chunk-slices` in meta.
CREATE TABLE chunk_prefixes (
    prefix INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (prefix, number)
) WITHOUT ROWID;
