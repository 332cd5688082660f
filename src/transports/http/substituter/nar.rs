//! `GET nar/…`: whole files and single ranges of them.
//!
//! The bytes behind a name never change, so Nix can resume: that takes `Accept-Ranges`, a strong
//! tag and no `Content-Encoding` (`src/libstore/filetransfer.cc`, Nix 2.34).

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tracing::error;

use crate::formats::Sha256Hash;
use crate::services::chain::Chain;
use crate::services::{Lookup, NarBytes, NarFile, Scope, StoreError};
use crate::transports::http::conditional::{client_has, not_modified};
use crate::transports::http::error::{KEEP_NOT, ReadError, short_text};
use crate::transports::http::range::{self, Wanted};
use crate::transports::http::substituter::target::NarName;

const KEEP: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable, no-transform");

/// One form of a NAR, as a file.
struct File {
    nar: NarFile,
    name: NarName,
    size: u64,
    etag: String,
}

impl File {
    async fn find(lookup: &Lookup, scope: &Scope, name: NarName) -> Result<Self, ReadError> {
        let (NarName::Stored { nar_hash, .. } | NarName::Raw { nar_hash }) = name;
        let nar = lookup.nar(scope, nar_hash).await?.ok_or(ReadError::NotFound)?;
        match name {
            // The frames had to be replaced since: those bytes are gone, and others are not what
            // the client wants to continue.
            NarName::Stored { revision, .. } if revision != nar.revision => {
                Err(ReadError::NotFound)
            }
            NarName::Stored { revision, .. } => {
                let etag = format!("\"{}-{revision}\"", nar_hash.to_base32());
                Ok(Self { size: nar.file_size, nar, name, etag })
            }
            NarName::Raw { .. } => {
                let etag = format!("\"{}\"", nar_hash.to_base32());
                Ok(Self { size: nar.nar_size, nar, name, etag })
            }
        }
    }

    fn read(&self, lookup: &Lookup, offset: u64, length: u64) -> NarBytes {
        match self.name {
            NarName::Stored { .. } => lookup.read_file(&self.nar, offset, length),
            NarName::Raw { .. } => lookup.read_raw(&self.nar, offset, length),
        }
    }
}

pub(super) async fn answer(
    lookup: &Lookup,
    scope: &Scope,
    name: NarName,
    request: &Parts,
) -> Result<Response, ReadError> {
    let file = File::find(lookup, scope, name).await?;
    let etag = HeaderValue::try_from(&file.etag).map_err(|_| ReadError::NotFound)?;
    if client_has(&request.headers, &etag) {
        return Ok(not_modified(etag, KEEP));
    }
    let is_head = request.method == Method::HEAD;
    // A range of what is not sent means nothing (RFC 9110, 14.2).
    let wanted = match is_head {
        true => Wanted::Whole,
        false => range::wanted(&request.headers, &etag, file.size),
    };
    let (status, offset, length) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, file.size),
        Wanted::Part { offset, length } => (StatusCode::PARTIAL_CONTENT, offset, length),
        Wanted::OutOfBounds => return Ok(out_of_bounds(file.size)),
    };
    let body = match is_head {
        true => Body::empty(),
        false => body(file.read(lookup, offset, length), file.nar.nar_hash).await,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in constant_headers() {
        response.headers_mut().insert(name, value);
    }
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    if let Wanted::Part { .. } = wanted {
        let range = format!("bytes {offset}-{}/{}", offset + (length - 1), file.size);
        response.headers_mut().extend(HeaderValue::try_from(range).map(|it| (CONTENT_RANGE, it)));
    }
    Ok(response)
}

fn constant_headers() -> [(HeaderName, HeaderValue); 4] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-nix-nar")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (CACHE_CONTROL, KEEP),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// A body that ends early, and so breaks the connection, where the NAR cannot be read. The first
/// piece is read before anything is said: if that fails, not even a status goes out.
async fn body(mut bytes: NarBytes, nar_hash: Sha256Hash) -> Body {
    let first = piece(&mut bytes, nar_hash).await;
    let pieces = stream::unfold((first, bytes), move |(next, mut bytes)| async move {
        let this = match next {
            Some(first) => first,
            None => piece(&mut bytes, nar_hash).await?,
        };
        Some((this, (None, bytes)))
    });
    Body::from_stream(pieces)
}

async fn piece(bytes: &mut NarBytes, nar_hash: Sha256Hash) -> Option<Result<Bytes, StoreError>> {
    let piece = bytes.next().await;
    if let Some(Err(error)) = &piece {
        error!(nar.hash = %nar_hash, error = %Chain(error), "A NAR cannot be read; broke off");
    }
    piece
}

fn out_of_bounds(size: u64) -> Response {
    let text = "the range is beyond the end of the file\n";
    let mut response = short_text(StatusCode::RANGE_NOT_SATISFIABLE, text);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, KEEP_NOT);
    headers.extend(
        HeaderValue::try_from(format!("bytes */{size}")).map(|range| (CONTENT_RANGE, range)),
    );
    response
}
