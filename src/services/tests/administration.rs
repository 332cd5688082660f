//! Tokens and checks.

use super::*;
use crate::services::{AuthError, CreateTokenError};
use crate::store::{Right, TokenId};
use crate::wire::{Refusal, RefusalCode, TokenText};

#[tokio::test]
async fn a_revoked_token_is_refused_at_once() {
    let test = TestServices::new().await;
    let tokens = &test.services.tokens;
    let (token, text) = tokens.create(per_cache("main", Right::Write)).await.unwrap();
    let text = text.to_secret_text();
    assert!(test.services.auth.check(&text).await.is_ok());

    assert!(tokens.revoke(token.id).await.unwrap());

    let error = test.services.auth.check(&text).await.unwrap_err();
    assert!(matches!(error, AuthError::Revoked), "{error}");
    assert_eq!(Refusal::from(error).code, RefusalCode::Unauthorised);
    assert!(!tokens.revoke(TokenId(999)).await.unwrap());
    test.stop().await;
}

#[tokio::test]
async fn only_a_token_of_this_box_with_its_secret_is_one() {
    let test = TestServices::new().await;
    let check = async |text: &str| test.services.auth.check(text).await.unwrap_err();
    assert!(matches!(check("ldr_x").await, AuthError::Malformed));
    let other_box = TokenText::new(DeviceId([8; 20]), [0; 32]).to_secret_text();
    assert!(matches!(check(&other_box).await, AuthError::OtherBox(DeviceId([8, ..]))));
    let unknown = TokenText::new(BOX, [0; 32]).to_secret_text();
    assert!(matches!(check(&unknown).await, AuthError::Unknown));
    test.stop().await;
}

#[tokio::test]
async fn the_last_use_is_written_down_before_the_box_stops() {
    let mut test = TestServices::new().await;
    test.stop.cancel();
    while test.upkeep.join_next().await.is_some() {}

    let tokens = test.services.tokens.list(TokenId(0), 100).await.unwrap();

    assert!(tokens[0].last_used_at.is_some(), "{tokens:?}");
    test.stop().await;
}

#[tokio::test]
async fn a_token_is_for_caches_that_there_are() {
    let test = TestServices::new().await;
    let create = async |request| test.services.tokens.create(request).await.map(drop).unwrap_err();
    let nowhere = create(per_cache("nowhere", Right::Read)).await;
    assert!(matches!(nowhere, CreateTokenError::NoSuchCache(_)), "{nowhere}");
    let mut twice = per_cache("main", Right::Read);
    twice.grants.as_mut().unwrap().push((TestServices::main(), Right::Write));
    assert!(matches!(create(twice).await, CreateTokenError::Grants));
    let none = TokenRequest { grants: Some(Vec::new()), ..per_cache("main", Right::Read) };
    assert!(matches!(create(none).await, CreateTokenError::Grants));
    let label = TokenRequest { label: "a\nb".to_owned(), ..per_cache("main", Right::Read) };
    assert!(matches!(create(label).await, CreateTokenError::Label));
    assert_eq!(test.services.tokens.list(TokenId(0), 100).await.unwrap().len(), 1);
    test.stop().await;
}

/// Waits for the end of the check that runs.
async fn ended(test: &TestServices) -> crate::services::check::EndedCheck {
    loop {
        let state = test.services.checks.state();
        if let (None, Some(last)) = (state.running, state.last) {
            return last;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_check_tells_sound_from_damaged() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 900_000));
    test.push("main", &path).await.unwrap();
    assert!(test.services.checks.start().unwrap().running.is_some());
    assert!(test.services.checks.start().is_err(), "one at a time");
    let report = ended(&test).await.result.unwrap();
    assert_eq!(report.damaged, [""; 0]);
    assert!(report.records > 10, "{report:?}");
    let scope = test.services.caches.root_scope(None);
    let hash = path.info.store_path.hash();
    assert!(test.services.lookup.narinfo(&scope, hash).await.unwrap().is_some());

    test.damage();
    test.services.checks.start().unwrap();
    let report = ended(&test).await.result.unwrap();

    assert_eq!(report.damaged.len(), 1, "{report:?}");
    let narinfo = test.services.lookup.narinfo(&scope, hash).await.unwrap();
    assert!(narinfo.is_none(), "not even from memory");
    let status = test.services.status.report().await.unwrap();
    assert_eq!(status.store.damaged_chunks, 1);
    test.stop().await;
}
