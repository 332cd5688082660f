//! `GET nar/…`

use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::services::{Lookup, Scope, Services};
use crate::transports::http::error::ReadError;
use crate::transports::http::substituter::bytes::{self, File, Form};
use crate::transports::http::substituter::scope::Asked;
use crate::transports::http::substituter::target::NarName;

const KEEP: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable, no-transform");

pub(super) async fn answer(
    services: &Services,
    asked: &Asked,
    name: NarName,
    request: &Parts,
) -> Result<Response, ReadError> {
    let file = find(&services.lookup, &asked.scope, name).await?;
    bytes::answer(services, asked, file, request).await
}

/// One form of a NAR, as a file.
async fn find(lookup: &Lookup, scope: &Scope, name: NarName) -> Result<File, ReadError> {
    let (NarName::Stored { nar_hash, .. } | NarName::Raw { nar_hash }) = name;
    let nar = lookup.nar(scope, nar_hash).await?.ok_or(ReadError::NotFound)?;
    let (form, size, etag) = match name {
        // The frames had to be replaced since: those bytes are gone, and others are not what
        // the client wants to continue.
        NarName::Stored { revision, .. } if revision != nar.revision => {
            return Err(ReadError::NotFound);
        }
        NarName::Stored { revision, .. } => {
            (Form::Stored, nar.file_size, format!("\"{}-{revision}\"", nar_hash.to_base32()))
        }
        NarName::Raw { .. } => (Form::Raw, nar.nar_size, format!("\"{}\"", nar_hash.to_base32())),
    };
    let kind = HeaderValue::from_static("application/x-nix-nar");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
    Ok(File { nar, form, start: 0, size, etag, keep: KEEP, headers })
}
