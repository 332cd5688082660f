//! Rights, ends, and what waits for them.

use super::*;
use crate::services::TokenRequest;
use crate::services::tests::{BOX, TestServices, cache, per_cache};

fn token() -> Token {
    Token {
        id: TokenId(1),
        label: String::new(),
        created_at: 100,
        expires_at: Some(200),
        last_used_at: None,
        revoked_at: None,
        grants: None,
        device_id: None,
    }
}

#[test]
fn a_token_ends_at_the_second_it_says() {
    assert!(check_at(&token(), 199).is_ok());
    assert!(matches!(check_at(&token(), 200), Err(AuthError::Expired)));
    let forever = Token { expires_at: None, ..token() };
    assert!(check_at(&forever, u64::MAX).is_ok());
}

#[test]
fn a_revoked_token_is_said_to_be_that_even_when_it_is_old() {
    let revoked = Token { revoked_at: Some(150), ..token() };
    assert!(matches!(check_at(&revoked, 300), Err(AuthError::Revoked)));
}

#[test]
fn an_end_is_seen_within_a_second_of_it() {
    for left in 0..100 {
        let pause = look_again_in(Some(1000 + left), 1000);
        let before_the_end = Duration::from_secs(left.saturating_sub(1));
        assert!(pause <= before_the_end.max(Duration::from_millis(200)), "{left}: {pause:?}");
    }
    assert_eq!(look_again_in(None, 1000), Duration::from_secs(30));
}

#[test]
fn rights_are_of_one_cache() {
    let (one, two) = (cache(1, "one"), cache(2, "two"));
    let caller = |grants| Caller { token: Token { grants, ..token() } };
    let writer = caller(Some(vec![(one.id, Right::Write)]));
    assert!(writer.may_write(&one) && !writer.may_write(&two) && !writer.is_personal());
    let reader = caller(Some(vec![(one.id, Right::Read)]));
    assert!(!reader.may_write(&one));
    let hidden = Cache { is_public: false, ..cache(1, "one") };
    assert!(reader.may_read(&hidden) && !writer.may_read(&hidden));
    assert!(reader.may_read(&two), "everybody reads what is public");
    let owner = caller(None);
    assert!(owner.may_write(&two) && owner.may_read(&hidden) && owner.is_personal());
    assert!(!caller(Some(Vec::new())).may_write(&one));
}

#[tokio::test]
async fn a_check_needs_no_index() {
    let test = TestServices::new().await;
    test.store.close().await.unwrap();
    assert!(test.services.auth.check(&test.owner_token).await.unwrap().is_personal());
}

#[tokio::test]
async fn who_goes_on_for_long_hears_of_the_end() {
    let test = TestServices::new().await;
    let (auth, tokens) = (&test.services.auth, &test.services.tokens);
    let (revoked, _) = tokens.create(per_cache("main", Right::Write)).await.unwrap();
    let short = TokenRequest { expires_in_seconds: Some(1), ..per_cache("main", Right::Write) };
    let (expiring, text) = tokens.create(short).await.unwrap();
    let (first, second) = (auth.revoked(revoked.id), auth.revoked(expiring.id));
    assert!(auth.check(&text.to_secret_text()).await.is_ok());

    tokens.revoke(revoked.id).await.unwrap();

    assert!(matches!(first.await, AuthError::Revoked));
    assert!(matches!(second.await, AuthError::Expired));
    assert!(matches!(auth.check(&text.to_secret_text()).await, Err(AuthError::Expired)));
    assert!(matches!(auth.revoked(TokenId(99)).await, AuthError::Unknown));
    test.stop().await;
}

#[tokio::test]
async fn a_token_of_a_device_is_good_on_it_alone() {
    let test = TestServices::new().await;
    let (one, two) = (DeviceId([1; 20]), DeviceId([2; 20]));
    let bound = TokenRequest { device: Some(one), ..per_cache("main", Right::Write) };
    let (_, text) = test.services.tokens.create(bound).await.unwrap();
    let text = text.to_secret_text();
    let check = async |device| {
        test.services.auth.check_from(Origin::NOWHERE, device, &text).await.map(drop)
    };
    assert!(check(Some(one)).await.is_ok());
    for device in [Some(two), None] {
        assert!(matches!(check(device).await, Err(AuthError::OtherDevice(only)) if only == one));
    }
    test.stop().await;
}

/// The clock is tokio's and stands still but where something waits, so this takes no time.
#[tokio::test]
async fn a_good_token_does_not_wait_behind_wrong_ones() {
    let test = TestServices::new().await;
    let auth = &test.services.auth;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let here = Origin([1; 16]);
    for number in 0..=200 {
        let wrong = TokenText::new(BOX, [number; 32]).to_secret_text();
        let error = auth.check_from(here, None, &wrong).await.unwrap_err();
        assert!(matches!(error, AuthError::Unknown), "{error}");
    }
    let took = begun.elapsed();
    assert!(took >= crate::formats::limits::WRONG_SECRET_EVERY * 180, "{took:?}");
    auth.check_from(here, None, &test.owner_token).await.unwrap();
    let elsewhere = TokenText::new(BOX, [9; 32]).to_secret_text();
    auth.check_from(Origin([2; 16]), None, &elsewhere).await.unwrap_err();
    assert_eq!(begun.elapsed(), took);
    tokio::time::resume();
    test.stop().await;
}
