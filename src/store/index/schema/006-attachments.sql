-- Build logs and realisations: where the record of each is. kind: 0 build log, 1 realisation.
CREATE TABLE attachments (
    cache INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    stored_len INTEGER NOT NULL,
    PRIMARY KEY (cache, kind, name)
) WITHOUT ROWID;
