-- Revisions of pins that still hold their path. artifacts: paths of files, joined by line feeds.
-- keep_days, keep_revisions: how long revisions of that name stay, where this is the newest; at
-- most one of them is not null, and forever where both are.
CREATE TABLE pins (
    cache INTEGER NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    path BLOB NOT NULL,
    base_name TEXT NOT NULL,
    artifacts TEXT NOT NULL,
    keep_days INTEGER,
    keep_revisions INTEGER,
    pinned_at INTEGER NOT NULL,
    token INTEGER NOT NULL,
    PRIMARY KEY (cache, name, revision)
) WITHOUT ROWID;

-- Up to which revision a pin was removed or has ended. A number is never given again, so records
-- of pins mean the same in whatever order they are read.
CREATE TABLE pin_ends (
    cache INTEGER NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (cache, name)
) WITHOUT ROWID;
