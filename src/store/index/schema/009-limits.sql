-- How long and how much stays in a cache; null: no limit.
ALTER TABLE caches ADD COLUMN retention_days INTEGER;
ALTER TABLE caches ADD COLUMN quota_bytes INTEGER;

-- How far the order of uses had come at some moment of a day since 1970, by a clock that was
-- believed: every use with a lower place was before that.
CREATE TABLE use_days (
    day INTEGER PRIMARY KEY,
    used INTEGER NOT NULL
);
