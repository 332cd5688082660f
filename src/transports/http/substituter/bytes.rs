//! Bytes out of a NAR as a file: whole and in single ranges.
//!
//! The bytes behind a tag never change, so Nix can resume: that takes `Accept-Ranges`, a strong
//! tag and no `Content-Encoding` (`src/libstore/filetransfer.cc`, Nix 2.34).

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use tracing::{debug, error};

use crate::formats::Sha256Hash;
use crate::services::admission::Transfer;
use crate::services::chain::Chain;
use crate::services::{AuthError, NarBytes, NarFile, Origin, Services, StoreError};
use crate::transports::http::conditional::{client_has, not_modified};
use crate::transports::http::error::{KEEP_NOT, ReadError, short_text};
use crate::transports::http::range::{self, Wanted};
use crate::transports::http::substituter::scope::Asked;

/// A run of bytes of a NAR that is a file to who asks.
pub(super) struct File {
    pub(super) nar: NarFile,
    /// Of the stored form, or of the NAR itself.
    pub(super) form: Form,
    /// Where in that form it begins.
    pub(super) start: u64,
    pub(super) size: u64,
    /// Names these very bytes.
    pub(super) etag: String,
    pub(super) keep: HeaderValue,
    /// What else is said of it.
    pub(super) headers: HeaderMap,
}

/// In which form a NAR is read.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// As it is stored.
    Stored,
    /// Decompressed.
    Raw,
}

impl File {
    fn read(&self, services: &Services, offset: u64, length: u64) -> NarBytes {
        let (lookup, offset) = (&services.lookup, self.start.saturating_add(offset));
        match self.form {
            Form::Stored => lookup.read_file(&self.nar, offset, length),
            Form::Raw => lookup.read_raw(&self.nar, offset, length),
        }
    }
}

/// Answers with a file, or what of it is asked for.
pub(super) async fn answer(
    services: &Services,
    asked: &Asked,
    file: File,
    request: &Parts,
) -> Result<Response, ReadError> {
    let etag = HeaderValue::try_from(&file.etag).map_err(|_| ReadError::NotFound)?;
    if client_has(&request.headers, &etag) {
        return Ok(not_modified(etag, file.keep));
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
        false => {
            // Nothing is read for who has no room yet.
            let room = services.admission.transfer(request.extensions.get::<Origin>().copied());
            let _room = room.await;
            let bytes = file.read(services, offset, length);
            let (nar_hash, end) = (file.nar.nar_hash, end_of(services, asked));
            body(Pieces { bytes, nar_hash, end, _room }).await
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = file.headers;
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, file.keep);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ETAG, etag);
    headers.insert(CONTENT_LENGTH, length.into());
    if let Wanted::Part { .. } = wanted {
        let range = format!("bytes {offset}-{}/{}", offset + (length - 1), file.size);
        headers.extend(HeaderValue::try_from(range).map(|it| (CONTENT_RANGE, it)));
    }
    Ok(response)
}

/// When the right to read ends; `None` where none is needed.
fn end_of(services: &Services, asked: &Asked) -> Option<BoxFuture<'static, AuthError>> {
    asked.token.map(|token| services.auth.revoked(token).boxed())
}

/// A body that ends early, and so breaks the connection, where the NAR cannot be read or the token
/// ends that it takes. The first piece is read before anything is said: if that fails, not even a
/// status goes out.
async fn body(mut pieces: Pieces) -> Body {
    let first = pieces.next().await;
    Body::from_stream(stream::try_unfold((first, pieces), |(next, mut pieces)| async {
        let this = match next {
            Some(first) => Some(first),
            None => pieces.next().await,
        };
        Ok::<_, BrokenOff>(this.transpose()?.map(|piece| (piece, (None, pieces))))
    }))
}

/// What is left of a NAR.
struct Pieces {
    bytes: NarBytes,
    nar_hash: Sha256Hash,
    end: Option<BoxFuture<'static, AuthError>>,
    _room: Transfer,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Token(#[from] AuthError),
}

impl Pieces {
    async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        // First, or a fast disk would never let it have its turn.
        if let Some(end) = &mut self.end
            && let Some(why) = end.now_or_never()
        {
            debug!(nar.hash = %self.nar_hash, "A token ended; broke off: {why}");
            return Some(Err(why.into()));
        }
        let piece = self.bytes.next().await;
        if let Some(Err(error)) = &piece {
            error!(nar.hash = %self.nar_hash, error = %Chain(error), "A NAR cannot be read; broke off");
        }
        piece.map(|piece| Ok(piece?))
    }
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
