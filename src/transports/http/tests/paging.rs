//! Long lists come in pages.

use super::*;
use crate::services::{TokenId, TokenRequest};

#[tokio::test]
async fn tokens_come_in_pages_that_fit_into_a_message() {
    let test = TestServices::new().await;
    for number in 0..110 {
        let request = TokenRequest {
            label: format!("{number} {}", "ä".repeat(90)),
            expires_in_seconds: None,
            grants: None,
            device: None,
        };
        test.services.tokens.create(request).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let path = format!("tokens?after={after}");
        let (status, page) = administer(&test, &test.owner, "GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let tokens = page["tokens"].as_array().unwrap();
        assert!(tokens.len() <= 100);
        seen.extend(tokens.iter().map(|token| token["id"].as_i64().unwrap()));
        after = page["next"].clone();
    }
    assert_eq!(seen, (1..=111).collect::<Vec<_>>());
    for query in ["limit=-1", "after=x", "page=2"] {
        let path = format!("tokens?{query}");
        let (status, problem) = administer(&test, &test.owner, "GET", &path, Value::Null).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("cannot be read"), "{problem}");
    }
    test.stop().await;
}

#[tokio::test]
async fn the_log_comes_in_pages_without_a_gap() {
    let test = TestServices::new().await;
    let mut pushed = Vec::new();
    for number in 0..7 {
        let path = TestPath::new(&format!("p{number}"), &[], &noise(number, 100));
        test.push("main", &path).await.unwrap();
        pushed.push(path.info.store_path.to_absolute());
    }
    test.push("other", &TestPath::new("x", &[], b"x")).await.unwrap();
    let log = async |query: String| {
        let path = format!("caches/main/log?{query}");
        administer(&test, &test.owner, "GET", &path, Value::Null).await
    };
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    for _ in 0..4 {
        let (status, page) = log(query).await;
        assert_eq!(status, 200, "{page}");
        for push in page["pushes"].as_array().unwrap() {
            assert_eq!((&push["token"], &push["token_label"]), (&json!(1), &json!("owner")));
            seen.push(push["path"].as_str().unwrap().to_owned());
        }
        query = format!("limit=2&after={}", page["next"].as_str().unwrap_or_default());
    }
    seen.sort();
    pushed.sort();
    assert_eq!(seen, pushed);

    let (status, one) = log(format!("path={}", pushed[3])).await;
    assert_eq!((status, &one["pushes"][0]["path"]), (200, &json!(pushed[3])));
    let (_, later) = log("since=99999999999".to_owned()).await;
    assert_eq!(later, json!({"pushes": [], "next": null}));
    for (query, expected) in [
        (format!("path={}", crate::services::tests::store_path("absent").hash()), 404),
        ("path=x".to_owned(), 400),
        ("after=1-x".to_owned(), 400),
        ("since=-1".to_owned(), 400),
    ] {
        let (status, problem) = log(query).await;
        assert_eq!(status, expected, "{problem}");
    }
    test.stop().await;
}

#[tokio::test]
async fn the_last_owner_is_not_lost_by_a_slip() {
    let test = TestServices::new().await;
    let revoke = async |query: &str| {
        let path = format!("tokens/1{query}");
        administer(&test, &test.owner, "DELETE", &path, Value::Null).await
    };
    let (status, problem) = revoke("").await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("larder token recover"), "{problem}");
    assert!(test.services.auth.check(&test.owner_token).await.is_ok());
    let another =
        TokenRequest { label: String::new(), expires_in_seconds: None, grants: None, device: None };
    let (second, _) = test.services.tokens.create(another).await.unwrap();
    assert_eq!(revoke("").await.0, 204);
    assert_eq!(second.id, TokenId(2));
    let path = "tokens/2?last=true";
    assert_eq!(administer(&test, &test.owner, "DELETE", path, Value::Null).await.0, 204);
    test.stop().await;
}
