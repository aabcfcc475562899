//! The decision core of the HTTP cache: whatever fields a client and an origin send, nothing that forbids to
//! be stored is stored, ages do not fall, and what a variant is selected by is the same for both requests.
#![no_main]

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use rawcached::Timestamp;
use rawcached::http_cache::answer::{Answer, Body, answer, answer_headers};
use rawcached::http_cache::cache_control::CacheControl;
use rawcached::http_cache::cache_status::CacheStatus;
use rawcached::http_cache::freshening::{Freshening, freshen};
use rawcached::http_cache::head::{Exchange, RequestHead, ResponseHead, StoredHead};
use rawcached::http_cache::invalidation::invalidated;
use rawcached::http_cache::request::{Class, classify};
use rawcached::http_cache::reuse::{Reuse, reuse};
use rawcached::http_cache::settings::Settings;
use rawcached::http_cache::storing::{Storing, store};
use rawcached::http_cache::tags::Tags;
use rawcached::http_cache::target::Target;
use rawcached::http_cache::targeted::{CDN_CACHE_CONTROL, targeted};
use rawcached::http_cache::variants::{Variant, Variants};

fuzz_target!(|data: &[u8]| {
    if let Some(variants) = Variants::decode(data) {
        assert_eq!(variants.encode(), data);
    }
    let Some(([method, status, delay, flags], rest)) = data.split_first_chunk() else { return };
    let mut heads = rest.split(|byte| *byte == 0).map(headers);
    let mut next = || heads.next().unwrap_or_default();
    let (asked, came, later, validated) = (next(), next(), next(), next());

    let settings = Settings { selects_language: flags & 1 != 0, ..Settings::default() };
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];
    let method = methods[usize::from(*method) % methods.len()].clone();
    let Some(target) = Target::new("http", "a.example", "/dir/page") else { return };
    let status = StatusCode::from_u16(200 + u16::from(*status)).unwrap();
    let request = |headers: &HeaderMap, method: &Method| {
        RequestHead::new(method.clone(), target.clone(), headers.clone(), flags & 2 != 0)
    };
    let response = |headers: &HeaderMap, status| ResponseHead {
        status,
        headers: headers.clone(),
        ends_with_connection: false,
    };
    let exchange = Exchange {
        requested_at: Timestamp(1000),
        received_at: Timestamp(1000 + u32::from(*delay)),
        received_date: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    };

    let first = request(&asked, &method);
    let found = response(&came, status);
    for target in &invalidated(&first, &found).targets {
        assert!(target.is_same_origin(first.target()));
    }
    let _ = Tags::of(&came);
    let kept = match store(&first, &found, &exchange, &settings) {
        Storing::Whole(kept) | Storing::Part { kept, .. } => kept,
        Storing::No(_) => return,
    };
    let control = match targeted(&came, &[CDN_CACHE_CONTROL]) {
        Some(control) => control,
        None => CacheControl::of(&came),
    };
    assert!(!control.private && (!control.forbids_storing || control.must_understand));
    assert!(!asked.contains_key("authorization") || control.permits_authorized);
    check(&kept.head);

    let second = request(&later, &Method::GET);
    let mut variants = Variants::new([1; 16]);
    let Some(variant) = Variant::new(kept.vary.clone(), first.headers(), &kept.head.headers, 1)
    else {
        return;
    };
    variants.insert(variant);
    assert!(variants.select(first.headers(), settings.selects_language).is_some());
    assert_eq!(Variants::decode(&variants.encode()).as_ref(), Some(&variants));
    let is_selected = variants.select(second.headers(), false).is_some();
    assert_eq!(is_selected, kept.answers(&first, &second));

    if let Class::Lookup(asked) = classify(&second, &settings) {
        let now = Timestamp(1000 + u32::from(*delay) * 9);
        if reuse(&asked, &kept.head, now) == Reuse::Fresh {
            assert!(kept.head.is_fresh(now));
        }
        let body = Body { len: 1000, is_partial: flags & 4 != 0 };
        let answer = answer(&second, &kept.head, body);
        if let Answer::Parts(parts) = &answer {
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= 1000));
            assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
        let mut headers = answer_headers(kept.head.clone(), &answer, now);
        assert!(headers.contains_key("age"));
        let ttl_secs = Some(kept.head.ttl_secs(now));
        CacheStatus { hit: true, ttl_secs, ..CacheStatus::default() }.append_to(&mut headers);
    }
    let not_modified = response(&validated, StatusCode::NOT_MODIFIED);
    if let Freshening::Updated(kept) =
        freshen(&kept.head, &second, &not_modified, &exchange, &settings)
    {
        check(&kept.head);
    }
});

/// What holds for every stored head.
fn check(head: &StoredHead) {
    for name in ["age", "connection", "content-length", "transfer-encoding", "set-cookie"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    assert!(head.date().is_some());
    let (early, late) = (Timestamp(500), Timestamp(5000));
    assert!(head.age(early) <= head.age(late) && head.age(early) >= head.initial_age);
    assert!(head.is_fresh(early) || !head.is_fresh(late));
}

/// Fields of lines; what is no field is left out.
fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(50) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
