//! Everything that touches the data folder, and the only user of its SQLite index.
