-- How long a managed key that a newer one has followed goes on signing, in seconds that the box
-- runs. NULL: it is the newest. 0: it is retired; its secret stays, so that it can be restored.
ALTER TABLE cache_keys ADD COLUMN overlap_left INTEGER;
