-- Which chunks a pack has and what they take: what a collection asks of each pack. Packs are
-- written one after the other, so entries come at the end.
CREATE INDEX chunks_by_pack ON chunks (pack, number, stored_len);

-- Where the path stands in the order in which paths were read or pushed; the higher, the later.
ALTER TABLE paths ADD COLUMN used INTEGER NOT NULL DEFAULT 0;

-- Packs whose records that count were all moved: their files go away, at the latest at a start.
CREATE TABLE emptied_packs (
    pack INTEGER PRIMARY KEY
);

-- For a replay under way only. Records that wait for those of earlier stages.
CREATE TABLE replay_later (
    stage INTEGER NOT NULL,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    stored_len INTEGER NOT NULL,
    PRIMARY KEY (stage, pack, offset)
) WITHOUT ROWID;

-- For a replay under way only. Before which place no record about a path counts.
CREATE TABLE replay_ends (
    cache BLOB NOT NULL,
    path BLOB NOT NULL,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (cache, path)
) WITHOUT ROWID;
