-- The only device that may use the token: the first 20 bytes of the SHA-256 of its public key.
ALTER TABLE tokens ADD COLUMN device_id BLOB;

-- Who pushed what, by time.
CREATE INDEX paths_by_time ON paths (cache, pushed_at);
