//! The laws of what stands in a request, for `fuzz/`: in no build but that.

use axum::http::header::{AUTHORIZATION, IF_NONE_MATCH, RANGE};
use axum::http::{HeaderMap, HeaderValue};
use data_encoding::BASE64;

use crate::transports::http::conditional::client_has;
use crate::transports::http::credentials::token_of;
use crate::transports::http::range::{Wanted, wanted};
use crate::transports::http::substituter::target::{NarName, Resource, Target};

/// What the root has under a name every cache has under it, and a NAR has one name.
pub fn paths(path: &str) {
    let Some(target) = Target::parse(path) else { return };
    match target.cache {
        None => {
            let of_cache = format!("/main{path}");
            let cache = Some("main");
            assert_eq!(
                Target::parse(&of_cache),
                Some(Target { cache, resource: target.resource.clone() })
            );
        }
        Some(cache) => assert!(
            !cache.contains('/') && path.get(1..).is_some_and(|rest| rest.starts_with(cache))
        ),
    }
    if let Resource::Nar(name) = target.resource {
        let written = match name {
            NarName::Stored { nar_hash, revision } => {
                format!("{}-{revision}.nar.zst", nar_hash.to_base32())
            }
            NarName::Raw { nar_hash } => format!("{}.nar", nar_hash.to_base32()),
        };
        assert!(path.ends_with(&format!("/nar/{written}")), "{path} is not {written}");
    }
}

/// No range leaves its file, a tag is found in any list, and a token comes back as it was shown.
pub fn headers(bytes: &[u8], size: u64) {
    let etag = HeaderValue::from_static("\"tag-1\"");
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        for name in [RANGE, IF_NONE_MATCH, AUTHORIZATION] {
            let headers = HeaderMap::from_iter([(name, value.clone())]);
            if let Wanted::Part { offset, length } = wanted(&headers, &etag, size) {
                assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size));
            }
            let _either_way = (client_has(&headers, &etag), token_of(&headers));
        }
        if !bytes.contains(&b'"') && value.to_str().is_ok() {
            let list = [bytes, b", W/\"tag-1\""].concat();
            let list = HeaderValue::from_bytes(&list).expect("a header still");
            assert!(client_has(&HeaderMap::from_iter([(IF_NONE_MATCH, list)]), &etag));
        }
    }
    if let Ok(token) = str::from_utf8(bytes) {
        let basic = format!("Basic {}", BASE64.encode(format!("anybody:{token}").as_bytes()));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, basic.parse().expect("a header"))]);
        assert_eq!(token_of(&headers).as_deref(), Some(token));
    }
}
