//! `Accept-Encoding` in one of a few forms, so that what varies by it has few variants (RFC 9110, section
//! 12.5.3).

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, HeaderValue};

use super::head::RequestHead;
use super::list::members;
use super::vary::thousandths;

/// Codings that an origin may choose, as they are asked for, and none. Who likes which one best does not matter.
const CODINGS: [&str; 4] = ["br", "gzip", "zstd", "identity"];
const GZIP: usize = 1;
const IDENTITY: usize = 3;

/// What is asked for by those who take none of the first three, the first, the second, both, and so on; and by those
/// who refuse what is not coded as well.
const FORMS: [[&str; 2]; 8] = [
    ["identity", "identity;q=0"],
    ["br", "br, identity;q=0"],
    ["gzip", "gzip, identity;q=0"],
    ["br, gzip", "br, gzip, identity;q=0"],
    ["zstd", "zstd, identity;q=0"],
    ["br, zstd", "br, zstd, identity;q=0"],
    ["gzip, zstd", "gzip, zstd, identity;q=0"],
    ["br, gzip, zstd", "br, gzip, zstd, identity;q=0"],
];

/// Makes of `Accept-Encoding` the codings among `br`, `gzip` and `zstd` that the client takes, in this order,
/// or `identity` if it takes none of them, or says nothing: what comes then is taken by all. With
/// `identity;q=0` if it refuses that.
pub fn normalize(request: &mut RequestHead) {
    let taken = taken(&request.headers);
    let coded = taken[..IDENTITY].iter().rev();
    let form = coded.fold(0, |form, taken| 2 * form + usize::from(*taken == Some(true)));
    let form = FORMS[form][usize::from(taken[IDENTITY] == Some(false))];
    request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(form));
}

/// Whether the client takes each of the codings: what it says of it, else of `*`. `None` if it says neither. A member
/// that cannot be read is not there; of two that contradict each other the refusal counts.
fn taken(headers: &HeaderMap) -> [Option<bool>; 4] {
    let (mut own, mut of_all) = ([None; 4], None);
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    for member in lines.filter_map(|line| line.to_str().ok()).flat_map(members) {
        let (name, weight) = match member.split_once(';') {
            None => (member, Some(1000)),
            Some((name, weight)) => (name, thousandths_of(weight)),
        };
        let Some(weight) = weight else { continue };
        let name = name.trim_ascii();
        let is_it = |coding: &&str| name.eq_ignore_ascii_case(coding);
        let found = match CODINGS.iter().position(is_it) {
            Some(coding) => &mut own[coding],
            None if name == "*" => &mut of_all,
            // RFC 9110, section 8.4.1.3.
            None if name.eq_ignore_ascii_case("x-gzip") => &mut own[GZIP],
            None => continue,
        };
        *found = Some(weight > 0 && found.unwrap_or(true));
    }
    own.map(|said: Option<bool>| said.or(of_all))
}

/// `q=` and a weight.
fn thousandths_of(parameter: &str) -> Option<u16> {
    let (name, weight) = parameter.split_once('=')?;
    thousandths(weight.trim()).filter(|_| name.trim().eq_ignore_ascii_case("q"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http_cache::testing::get;

    fn normalized(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("accept-encoding", *line)).collect();
        let mut request = get(&lines);
        normalize(&mut request);
        let mut found = request.headers().get_all(ACCEPT_ENCODING).iter();
        let value = found.next().unwrap().to_str().unwrap().to_owned();
        assert!(found.next().is_none());
        value
    }

    /// RFC 9110, section 12.5.3.
    #[test]
    fn clients_get_one_of_a_few_forms() {
        for (lines, expected) in [
            (&["gzip, deflate, br, zstd"][..], "br, gzip, zstd"),
            (&["zstd", "BR;q=0.5,gzip ; Q=0.001"], "br, gzip, zstd"),
            (&["gzip, deflate, br"], "br, gzip"),
            (&["gzip;q=1.0, identity;q=0.5, *;q=0"], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["deflate"], "identity"),
            (&["identity"], "identity"),
            (&[""], "identity"),
            (&[], "identity"),
        ] {
            assert_eq!(normalized(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_refused_is_not_asked_for() {
        for (line, expected) in [
            ("gzip;q=0, br", "br"),
            ("gzip;q=0.000", "identity"),
            ("gzip, gzip;q=0", "identity"),
            ("gzip;q=0, gzip", "identity"),
            ("*", "br, gzip, zstd"),
            ("*;q=0.1, br;q=0", "gzip, zstd"),
            ("br, *;q=0", "br, identity;q=0"),
            ("*;q=0", "identity;q=0"),
            ("*;q=0, identity", "identity"),
            ("gzip, identity;q=0", "gzip, identity;q=0"),
            ("deflate, identity;q=0", "identity;q=0"),
        ] {
            assert_eq!(normalized(&[line]), expected, "{line}");
        }
    }

    #[test]
    fn a_member_that_cannot_be_read_is_not_there() {
        for line in ["gzip;q=2", "gzip;q=", "gzip;level=9", "gzip;q=0.5;x", "gzip q=1", "\"gzip\""]
        {
            assert_eq!(normalized(&[line]), "identity", "{line}");
        }
    }

    proptest! {
        #[test]
        fn there_are_few_forms(line in "[a-z*;=0-1., ]{0,20}|(gzip|br|zstd|\\*|identity)(;q=[01](, )?)?") {
            let once = normalized(&[&line]);
            let is_known = |part| CODINGS.contains(&part) || part == "identity;q=0";
            prop_assert!(once.split(", ").all(is_known));
            prop_assert_eq!(normalized(&[&once]), once);
        }
    }
}
