//! Tests of what has no file of its own beside it: flags, targets, failures told, words, and the manifests.

mod manifests;

use hyper::header::HeaderValue;
use serde_json::json;

use crate::args::duration;
use crate::client::Target;
use crate::fault::{blame, proxy_error};
use crate::roles::{Line, Word};

#[test]
fn durations() {
    let cases = [
        ("500ms", Some(500)),
        ("30s", Some(30_000)),
        ("30", Some(30_000)),
        ("2m", Some(120_000)),
        ("0", Some(0)),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1.5s", None),
        ("1h", None),
        ("18446744073709551615m", None),
    ];
    for (text, millis) in cases {
        assert_eq!(duration(text).ok().map(|d| d.as_millis()), millis, "{text:?}");
    }
}

#[test]
fn targets() {
    for good in
        ["http://cart:8080", "http://cart", "http://10.0.0.1:80/", "http://[::1]:8080", "http://[::1]"]
    {
        assert!(good.parse::<Target>().is_ok(), "{good}");
    }
    for bad in [
        "cart:8080",
        "https://cart",
        "http://",
        "http://:80",
        "http://a:99999",
        "http://a/path",
        "http://a/?q",
        "http://u@a",
    ] {
        assert!(bad.parse::<Target>().is_err(), "{bad}");
    }
}

#[test]
fn words_are_safe_in_a_path() {
    for bad in ["", "a/b", "..", "A", "a b", "é", &"x".repeat(33)] {
        assert!(Word::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
    assert!(Word::try_from("x".repeat(32)).is_ok());
    for (line, good) in [
        (r#"{"sku":"loom","quantity":99}"#, true),
        (r#"{"sku":"loom","quantity":0}"#, false),
        (r#"{"sku":"loom","quantity":100}"#, false),
        (r#"{"sku":"../x","quantity":1}"#, false),
    ] {
        assert_eq!(serde_json::from_str::<Line>(line).is_ok(), good, "{line}");
    }
}

#[test]
fn blame_goes_to_the_deepest_cause() {
    let deep = json!({"upstream": "cart", "reason": "status_502",
        "cause": {"upstream": "product", "reason": "connection_refused"}});
    assert_eq!(blame(&deep), Some(("product", "connection_refused")));
    let shallow =
        json!({"upstream": "cart", "reason": "status_500", "cause": {"message": "of another make"}});
    assert_eq!(blame(&shallow), Some(("cart", "status_500")));
    assert_eq!(blame(&json!({"error": "no"})), None);
}

#[test]
fn proxy_status_names_its_error() {
    for (field, error) in [
        ("weft-outbound; error=connection_refused; next-hop=\"10.1.2.3:8080\"", Some("connection_refused")),
        ("a, b;error=dns_error", Some("dns_error")),
        ("a; received-status=503", None),
    ] {
        assert_eq!(proxy_error(&HeaderValue::from_static(field)), error, "{field}");
    }
}
