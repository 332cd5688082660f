//! Keeps `src/` readable.
