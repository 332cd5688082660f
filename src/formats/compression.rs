//! How the file behind a narinfo's `URL` is compressed.

use std::fmt;
use std::str::FromStr;

/// A compression that Nix has a name for. Shown as that name.
///
/// Source: `src/libutil/include/nix/util/compression-algo.hh` (Nix 2.34). Every Nix since 2.8
/// reads [`None`](Self::None), [`Xz`](Self::Xz), [`Zstd`](Self::Zstd), [`Bzip2`](Self::Bzip2)
/// and [`Brotli`](Self::Brotli); the rest depends on how its libarchive was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say all there is")]
pub enum Compression {
    None,
    Brotli,
    Bzip2,
    Compress,
    Grzip,
    Gzip,
    Lrzip,
    Lz4,
    Lzip,
    Lzma,
    Lzop,
    Xz,
    Zstd,
}

/// A name that Nix does not know; since 2.35 it takes the whole narinfo for corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no compression that Nix knows")]
pub struct UnknownCompression;

const NAMES: [(Compression, &str); 13] = [
    (Compression::None, "none"),
    (Compression::Brotli, "br"),
    (Compression::Bzip2, "bzip2"),
    (Compression::Compress, "compress"),
    (Compression::Grzip, "grzip"),
    (Compression::Gzip, "gzip"),
    (Compression::Lrzip, "lrzip"),
    (Compression::Lz4, "lz4"),
    (Compression::Lzip, "lzip"),
    (Compression::Lzma, "lzma"),
    (Compression::Lzop, "lzop"),
    (Compression::Xz, "xz"),
    (Compression::Zstd, "zstd"),
];

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.into_iter().find(|(_, name)| *name == text);
        found.map(|(compression, _)| compression).ok_or(UnknownCompression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.into_iter().find(|(compression, _)| compression == self);
        f.write_str(found.map_or("none", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for (compression, name) in NAMES {
            assert_eq!(compression.to_string(), name);
            assert_eq!(name.parse(), Ok(compression));
        }
        for name in ["", "identity", "ZSTD", "zstd ", "brotli"] {
            assert_eq!(name.parse::<Compression>(), Err(UnknownCompression), "{name:?}");
        }
    }
}
