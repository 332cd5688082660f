-- What a token may be told: which chunks are in which cache. block: number of the chunk / 8192.
-- bits: which of the block's chunks, see FORMAT.md.
CREATE TABLE cache_chunks (
    cache INTEGER NOT NULL,
    block INTEGER NOT NULL,
    bits BLOB NOT NULL,
    PRIMARY KEY (cache, block)
) WITHOUT ROWID;

-- To be filled from the paths that are there, when they have been read.
INSERT INTO meta (name, value)
SELECT 'cache-chunks-due', x'01' WHERE EXISTS (SELECT 1 FROM paths);

-- Who sent which chunk and when: every token for itself. What is nobody's needs no row.
ALTER TABLE uploads RENAME TO uploads_of_one;
CREATE TABLE uploads (
    number INTEGER NOT NULL,
    token INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (number, token)
) WITHOUT ROWID;
INSERT INTO uploads SELECT number, token, at FROM uploads_of_one WHERE token <> 0;
DROP TABLE uploads_of_one;
