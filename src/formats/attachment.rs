//! What belongs to paths without being part of them: build logs and realisations.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{CParameter, find_frame_compressed_size};

use crate::formats::StorePath;
use crate::formats::limits::{
    ATTACHMENT_WINDOW_LOG_MAX, BUILD_LOG_BYTES_MAX, REALISATION_BYTES_MAX,
};
use crate::formats::realisation::DrvOutput;

/// Which attachment of a cache. The order of the variants is their number on the wire and on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttachmentName {
    /// 0: what a build wrote, by the derivation that was built.
    BuildLog(StorePath),
    /// 1: which path an output of a content-addressed derivation became.
    Realisation(DrvOutput),
}

impl AttachmentName {
    /// What a log of this derivation is called; `None` for a path that is no derivation.
    #[must_use]
    pub fn build_log(derivation: StorePath) -> Option<Self> {
        derivation.name().ends_with(".drv").then_some(Self::BuildLog(derivation))
    }

    /// Whether it can be the name of something.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::BuildLog(derivation) => derivation.name().ends_with(".drv"),
            Self::Realisation(_) => true,
        }
    }

    /// The number of its kind.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::BuildLog(_) => 0,
            Self::Realisation(_) => 1,
        }
    }

    /// Most bytes of its contents.
    #[must_use]
    pub const fn contents_max(&self) -> u32 {
        match self {
            Self::BuildLog(_) => BUILD_LOG_BYTES_MAX,
            Self::Realisation(_) => REALISATION_BYTES_MAX,
        }
    }
}

impl fmt::Display for AttachmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuildLog(derivation) => f.write_str(derivation.base_name()),
            Self::Realisation(output) => write!(f, "{output}"),
        }
    }
}

/// Compresses the contents of an attachment into one frame.
///
/// # Errors
///
/// Those of zstd, such as an unknown level.
pub fn pack(contents: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.set_parameter(CParameter::WindowLog(ATTACHMENT_WINDOW_LOG_MAX))?;
    compressor.compress(contents)
}

/// Reads the contents out of exactly one frame, with a window of at most
/// [`ATTACHMENT_WINDOW_LOG_MAX`]; how much may be read is the caller's to bound.
///
/// # Errors
///
/// Where it is not exactly one frame; what is wrong inside comes while reading.
pub fn unpack(frame: &[u8]) -> io::Result<impl Read + '_> {
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(io::Error::other("the bytes are not exactly one zstd frame"));
    }
    let mut decoder = Decoder::with_buffer(frame)?.single_frame();
    decoder.window_log_max(ATTACHMENT_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_other_frames_are_refused() {
        let contents = b"a line of a log\n".repeat(200_000);
        let frame = pack(&contents, 3).unwrap();
        let mut read = Vec::new();
        unpack(&frame).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == contents);
        assert!(unpack(&[&frame[..], b"x"].concat()).is_err());
        assert!(unpack(&frame[..frame.len() - 1]).is_err());
        assert!(unpack(b"").is_err());

        let mut wide = zstd::bulk::Compressor::new(3).unwrap();
        wide.set_parameter(CParameter::WindowLog(ATTACHMENT_WINDOW_LOG_MAX + 3)).unwrap();
        let frame = wide.compress(&contents.repeat(3)).unwrap();
        assert!(unpack(&frame).unwrap().read_to_end(&mut read).is_err());
    }

    #[test]
    fn a_log_is_that_of_a_derivation() {
        let path = |name: &str| format!("syd87l2rxw8cbsxmxl853h0r6pdwhwjr-{name}").parse().unwrap();
        assert!(AttachmentName::build_log(path("curl.drv")).is_some());
        assert!(AttachmentName::build_log(path("curl")).is_none());
    }
}
