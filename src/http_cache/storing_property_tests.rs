//! Goal: what forbids to store a response does so whatever else it says. Method: random fields and settings.

use http::header::{AGE, DATE};
use proptest::prelude::*;

use super::*;
use crate::http_cache::settings::ClientDirectives;
use crate::http_cache::testing::{exchange, get, response, secs};

fn lines() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let lines = vec![
        ("cache-control", "max-age=60"),
        ("cache-control", "s-maxage=60, public"),
        ("cache-control", "must-revalidate, stale-if-error=60"),
        ("cache-control", "x=\"no-store\", immutable"),
        ("expires", "Sun, 06 Nov 2094 08:49:37 GMT"),
        ("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT"),
        ("etag", "\"a\""),
        ("vary", "accept"),
        ("cdn-cache-control", "&"),
        ("cdn-cache-control", ""),
        ("age", "5"),
        ("connection", "cache-control, x"),
        ("surrogate-control", "max-age=99"),
        ("x-accel-expires", "99"),
        ("content-range", "bytes 0-1/2"),
    ];
    proptest::collection::vec(proptest::sample::select(lines), 0..6)
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<[bool; 5]>(), any::<Option<u16>>()).prop_map(|(flags, ttl)| Settings {
        set_cookie: if flags[0] { SetCookie::Store } else { SetCookie::Never },
        client_directives: match flags[1] {
            true => ClientDirectives::Honor,
            false => ClientDirectives::Ignore,
        },
        ttl_override: ttl.map(|ttl| secs(u64::from(ttl))),
        ttl_default: flags[2].then_some(secs(60)),
        reads_accel_expires: flags[3],
        ignores_expires: flags[4],
        ignores_vary: flags[2],
        grace_default: secs(60),
        ..Settings::default()
    })
}

proptest! {
    /// A response that forbids storing never reaches the store, whatever else it says.
    #[test]
    fn what_forbids_is_never_stored(before in lines(), after in lines(), settings in settings(),
                                    status in 200..600_u16, range: bool,
                                    line in proptest::sample::select(vec![
                                        "no-store", "private", "max-age=9, No-Store", "a=\"b\\\"\", private",
                                        "private=\"vary\"", "max-age=1; no-store", "x=\"open, no-store"])) {
        let lines = [before, vec![("cache-control", line)], after].concat();
        let request = if range { get(&[("range", "bytes=0-1")]) } else { get(&[]) };
        let found = store(&request, &response(status, &lines), &exchange(), &settings);
        prop_assert!(matches!(found, Storing::No(_)), "{:?}", found);
    }

    #[test]
    fn what_is_stored_of_an_authorized_response_was_permitted(lines in lines(), settings in settings()) {
        let request = get(&[("authorization", "x")]);
        let found = store(&request, &response(200, &lines), &exchange(), &settings);
        let permits = lines.iter().any(|(_, value)| value.contains("public") || value.contains("must-rev"));
        prop_assert!(permits || matches!(found, Storing::No(_)), "{:?}", found);
    }

    #[test]
    fn no_response_is_fresher_than_its_lifetime(lines in lines(), settings in settings()) {
        if let Storing::Whole(kept) = store(&get(&[]), &response(200, &lines), &exchange(), &settings) {
            let head = kept.head;
            prop_assert!(head.fresh_for(head.received_at) <= head.terms.lifetime);
            prop_assert!(head.headers.contains_key(DATE) && !head.headers.contains_key(AGE));
        }
    }
}
