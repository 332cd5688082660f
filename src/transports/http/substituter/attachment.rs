//! `GET log/DERIVATION` and `GET realisations/OUTPUT.doi`

use std::io::Read;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Method, request::Parts};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::formats::{AttachmentName, attachment};
use crate::services::{Attachment, Lookup, Scope};
use crate::transports::http::error::ReadError;

const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=60");
/// Text that a stranger wrote: shown, never run.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const PIECE_BYTES: u64 = 64 << 10;
/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 2;

pub(super) async fn answer(
    lookup: &Lookup,
    scope: &Scope,
    name: &AttachmentName,
    request: &Parts,
) -> Result<Response, ReadError> {
    let (body, length, kind) = match name {
        AttachmentName::BuildLog(_) => {
            let log = lookup.build_log(scope, name).await?.ok_or(ReadError::NotFound)?;
            let length = u64::from(log.raw_len);
            let is_read = request.method == Method::GET;
            (if is_read { unpacked(log) } else { Body::empty() }, length, TEXT)
        }
        AttachmentName::Realisation(_) => {
            let json = lookup.realisation(scope, name).await?.ok_or(ReadError::NotFound)?;
            let length = u64::try_from(json.len()).unwrap_or(u64::MAX);
            (Body::from(json), length, JSON)
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, KEEP);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Decompresses as fast as the reader takes it: a log may be much larger than its frame.
fn unpacked(log: Attachment) -> Body {
    let (pieces, taken) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_AHEAD);
    let _runs_on = spawn_blocking(move || {
        if let Err(error) = unpack(&log.zstd, |piece| pieces.blocking_send(Ok(piece)).is_ok()) {
            let _reader_may_be_gone = pieces.blocking_send(Err(error));
        }
    });
    Body::from_stream(stream::unfold(taken, |mut taken| async move {
        let piece = taken.recv().await?;
        Some((piece, taken))
    }))
}

/// Hands on piece by piece until `take` wants no more.
fn unpack(frame: &[u8], mut take: impl FnMut(Bytes) -> bool) -> std::io::Result<()> {
    let mut contents = attachment::unpack(frame)?;
    loop {
        let mut piece = Vec::new();
        contents.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)?;
        if piece.is_empty() || !take(piece.into()) {
            return Ok(());
        }
    }
}
