//! The variants of one target (RFC 9111, section 4.1): which stored response answers a request. This is
//! what the entry of the target's own key holds; the responses are entries of their own.

use http::HeaderMap;
use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE, HeaderName};

use super::vary::{KEY_LEN_MAX, Names, VariantKey, best_language};

/// Most variants of one target: the oldest one goes.
pub const VARIANTS_MAX: usize = 64;

/// Version of the encoding.
const VERSION: u8 = 2;

/// The variants of one target, the newest one last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variants {
    name: [u8; 16],
    soft_purges: u32,
    variants: Vec<Variant>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The fields that it depends on.
    names: Names,
    /// What its request had there.
    key: VariantKey,
    /// The same without `Accept-Language`, and its `Content-Language`, if it has one that could be
    /// selected by.
    language: Option<(VariantKey, String)>,
    /// Names it among the entries of the target.
    id: u64,
}

impl Variant {
    /// The variant that answers `request` with the fields `response`; `id` names it. `None` if the
    /// request has more than [`KEY_LEN_MAX`] bytes in the fields `names`.
    #[must_use]
    pub fn new(
        names: Names,
        request: &HeaderMap,
        response: &HeaderMap,
        id: u64,
    ) -> Option<Variant> {
        let key = names.key(request);
        let language = content_language(response).filter(|_| names.contains(&ACCEPT_LANGUAGE));
        let language = language.map(|language| (names.key_without_language(request), language));
        let fits = key.as_bytes().len() <= KEY_LEN_MAX;
        fits.then_some(Variant { names, key, language, id })
    }

    /// The number that names it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The fields that it depends on.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn matches(&self, request: &HeaderMap) -> bool {
        self.names.key(request) == self.key
    }

    fn is_in(&self, language: &str, request: &HeaderMap) -> bool {
        let Some((others, own)) = &self.language else { return false };
        own == language && self.names.key_without_language(request) == *others
    }
}

/// The one language of a response, in lower case.
fn content_language(response: &HeaderMap) -> Option<String> {
    let mut lines = response.get_all(CONTENT_LANGUAGE).iter();
    let language = lines.next()?.to_str().ok()?.trim().to_ascii_lowercase();
    let is_one = language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_one && !language.is_empty() && lines.next().is_none()).then_some(language)
}

impl Variants {
    /// None yet. `name` is random: the keys of the variants contain it, so that whoever removes this entry
    /// removes them all, now and later.
    #[must_use]
    pub fn new(name: [u8; 16]) -> Variants {
        Variants { name, soft_purges: 0, variants: Vec::new() }
    }

    /// What tells these variants from those that took their place, and from what they were before all of them were made
    /// stale: what was asked for before must not be added after.
    #[must_use]
    pub fn generation(&self) -> ([u8; 16], u32) {
        (self.name, self.soft_purges)
    }

    /// Notes that all of them are made stale.
    pub fn note_soft_purge(&mut self) {
        self.soft_purges = self.soft_purges.wrapping_add(1);
    }

    /// What the keys of the variants contain.
    #[must_use]
    pub fn name(&self) -> &[u8; 16] {
        &self.name
    }

    /// Adds a variant. Gives the ids of those that it replaces: the same one of before, and the oldest
    /// one if there are too many.
    pub fn insert(&mut self, variant: Variant) -> Vec<u64> {
        let is_same = |known: &Variant| known.names == variant.names && known.key == variant.key;
        let mut gone: Vec<u64> = Vec::new();
        self.variants.retain(|known| {
            let stays = !is_same(known);
            if !stays && known.id != variant.id {
                gone.push(known.id);
            }
            stays
        });
        self.variants.push(variant);
        if self.variants.len() > VARIANTS_MAX {
            gone.push(self.variants.remove(0).id);
        }
        gone
    }

    /// Removes the variant `id`.
    pub fn remove(&mut self, id: u64) {
        self.variants.retain(|known| known.id != id);
    }

    /// The newest variant that answers `request`. With `selects_language`, else the newest one in the
    /// language that the request likes best, if it has all else that the variant depends on.
    #[must_use]
    pub fn select(&self, request: &HeaderMap, selects_language: bool) -> Option<&Variant> {
        let newest_first = || self.variants.iter().rev();
        if let Some(found) = newest_first().find(|variant| variant.matches(request)) {
            return Some(found);
        }
        let language = best_language(request).filter(|_| selects_language)?;
        newest_first().find(|variant| variant.is_in(&language, request))
    }

    /// The variants, the newest one last.
    pub fn iter(&self) -> impl Iterator<Item = &Variant> {
        self.variants.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.variants.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.soft_purges.to_le_bytes());
        put_len(&mut bytes, self.variants.len());
        for variant in &self.variants {
            bytes.extend_from_slice(&variant.id.to_le_bytes());
            put_len(&mut bytes, variant.names.iter().count());
            for name in variant.names.iter() {
                put(&mut bytes, name.as_str().as_bytes());
            }
            put(&mut bytes, variant.key.as_bytes());
            match &variant.language {
                None => bytes.push(0),
                Some((others, language)) => {
                    bytes.push(1);
                    put(&mut bytes, others.as_bytes());
                    put(&mut bytes, language.as_bytes());
                }
            }
        }
        bytes
    }

    /// What [`Variants::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Variants> {
        let (name, rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let (soft_purges, mut rest) = rest.split_first_chunk()?;
        let soft_purges = u32::from_le_bytes(*soft_purges);
        let count = take_len(&mut rest)?;
        if count > VARIANTS_MAX {
            return None;
        }
        let variants = (0..count).map(|_| Variant::decode(&mut rest)).collect::<Option<_>>()?;
        rest.is_empty().then_some(Variants { name: *name, soft_purges, variants })
    }
}

impl Variant {
    fn decode(rest: &mut &[u8]) -> Option<Variant> {
        let (id, behind) = rest.split_first_chunk()?;
        *rest = behind;
        let id = u64::from_le_bytes(*id);
        let count = take_len(rest)?;
        if count > super::vary::NAMES_MAX {
            return None;
        }
        let given: Vec<HeaderName> =
            (0..count).map(|_| HeaderName::from_bytes(take(rest)?).ok()).collect::<Option<_>>()?;
        let names = Names::new(given.clone())?;
        let key = VariantKey::from_bytes(take(rest)?.to_vec());
        let (has_language, behind) = rest.split_first()?;
        *rest = behind;
        let language = match has_language {
            0 => None,
            1 => {
                let others = VariantKey::from_bytes(take(rest)?.to_vec());
                Some((others, String::from_utf8(take(rest)?.to_vec()).ok()?))
            }
            _ => return None,
        };
        let is_sound = names.iter().eq(given.iter()) && key.as_bytes().len() <= KEY_LEN_MAX;
        is_sound.then_some(Variant { names, key, language, id })
    }
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&len.to_le_bytes());
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    put_len(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let (len, behind) = rest.split_first_chunk()?;
    *rest = behind;
    usize::try_from(u32::from_le_bytes(*len)).ok()
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_len(rest)?;
    let (part, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::http_cache::testing::headers;
    use crate::http_cache::vary::{Vary, normalized};

    fn variant(vary: &str, request: &[(&str, &str)], id: u64) -> Variant {
        in_language(vary, request, &[], id)
    }

    fn in_language(
        vary: &str,
        request: &[(&str, &str)],
        response: &[(&str, &str)],
        id: u64,
    ) -> Variant {
        let Vary::Names(names) = Vary::of(&headers(&[("vary", vary)])) else { panic!("{vary}") };
        Variant::new(names, &headers(request), &headers(response), id).unwrap()
    }

    fn selected(variants: &Variants, request: &[(&str, &str)]) -> Option<u64> {
        variants.select(&headers(request), false).map(Variant::id)
    }

    /// RFC 9111, section 4.1.
    #[test]
    fn the_variant_of_the_same_fields_is_selected() {
        let mut variants = Variants::new([7; 16]);
        assert_eq!(selected(&variants, &[]), None);
        variants.insert(variant("foo", &[("foo", "1")], 1));
        variants.insert(variant("foo", &[("foo", "2")], 2));
        variants.insert(variant("foo, bar", &[("foo", "3"), ("bar", "x")], 3));
        assert_eq!(selected(&variants, &[("foo", "1"), ("other", "9")]), Some(1));
        assert_eq!(selected(&variants, &[("foo", "2")]), Some(2));
        assert_eq!(selected(&variants, &[("foo", "3")]), None);
        assert_eq!(selected(&variants, &[("bar", "x"), ("foo", "3")]), Some(3));
        assert_eq!(selected(&variants, &[]), None);
        variants.remove(1);
        assert_eq!(selected(&variants, &[("foo", "1")]), None);
    }

    #[test]
    fn the_newest_of_several_that_match_is_selected() {
        let mut variants = Variants::new([7; 16]);
        assert_eq!(variants.insert(variant("foo", &[("foo", "1")], 1)), [0; 0]);
        assert_eq!(variants.insert(variant("", &[], 2)), [0; 0]);
        assert_eq!(selected(&variants, &[("foo", "1")]), Some(2));
        assert_eq!(variants.insert(variant("foo", &[("foo", "1")], 3)), [1]);
        assert_eq!(selected(&variants, &[("foo", "1")]), Some(3));
        assert_eq!((selected(&variants, &[("foo", "2")]), variants.len()), (Some(2), 2));
        assert_eq!(variants.insert(variant("", &[], 2)), [0; 0], "its own place is no other's");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut variants = Variants::new([7; 16]);
        for id in 0..64 {
            assert_eq!(variants.insert(variant("foo", &[("foo", &id.to_string())], id)), [0; 0]);
        }
        assert_eq!(variants.insert(variant("foo", &[("foo", "x")], 64)), [0]);
        assert_eq!((variants.len(), selected(&variants, &[("foo", "0")])), (64, None));
        assert_eq!(Variants::decode(&variants.encode()).unwrap(), variants);
    }

    #[test]
    fn a_language_is_selected_where_that_is_chosen() {
        let mut variants = Variants::new([7; 16]);
        let vary = "accept-language, foo";
        let request = [("accept-language", "en, de"), ("foo", "1")];
        variants.insert(in_language(vary, &request, &[("content-language", "De")], 1));
        let select = |language: &str, foo: &str, selects: bool| {
            let request = headers(&[("accept-language", language), ("foo", foo)]);
            variants.select(&request, selects).map(Variant::id)
        };
        assert_eq!(select("fr;q=0.5, de;q=1.0", "1", true), Some(1));
        assert_eq!(select("fr;q=0.5, de;q=1.0", "1", false), None);
        assert_eq!(select("fr;q=0.5, de;q=1.0", "2", true), None, "all else must match");
        assert_eq!(select("fr, de;q=0.5", "1", true), None);
        assert_eq!(select("fr, de", "1", true), None);
        let mut others = Variants::new([7; 16]);
        others.insert(in_language(
            "accept-language",
            &request,
            &[("content-language", "en, de")],
            1,
        ));
        assert!(others.select(&headers(&[("accept-language", "de")]), true).is_none());
    }

    #[test]
    fn a_request_that_says_too_much_makes_no_variant() {
        let Vary::Names(names) = Vary::of(&headers(&[("vary", "foo")])) else { panic!() };
        let long = "x".repeat(KEY_LEN_MAX);
        let made = Variant::new(names, &headers(&[("foo", &long)]), &HeaderMap::new(), 1);
        assert_eq!(made, None);
    }

    #[test]
    fn what_is_not_encoded_variants_is_none() {
        let mut variants = Variants::new([7; 16]);
        variants.insert(variant("foo", &[("foo", "1")], 7));
        let bytes = variants.encode();
        for len in 0..bytes.len() {
            assert_eq!(Variants::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(Variants::decode(&[&bytes[..], &[0]].concat()), None);
    }

    fn field() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let names = ["foo", "bar", "accept", "accept-encoding", "accept-language"];
        let value = "[ -~]{0,9}|(en|DE|fr)(;q=0\\.[0-9])?([ ,]{1,2}(de|en))?|[\\x80-\\xff]{1,2}";
        let field = (proptest::sample::select(names.to_vec()), value).prop_map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HeaderName::from_static(name), value)
        });
        proptest::collection::vec(field, 0..6)
    }

    fn map(fields: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    proptest! {
        /// A response is never given to a request that its `Vary` does not match.
        #[test]
        fn what_is_selected_matches(stored in proptest::collection::vec((field(), 0..32_usize), 0..9),
                                    request in field()) {
            let all = ["foo", "bar", "accept", "accept-encoding", "accept-language"];
            let mut variants = Variants::new([7; 16]);
            let mut requests = Vec::new();
            for (id, (fields, chosen)) in stored.into_iter().enumerate() {
                let chosen = all.iter().enumerate().filter(|(n, _)| chosen & (1 << n) != 0);
                let names: Vec<_> = chosen.map(|(_, name)| HeaderName::from_static(name)).collect();
                let fields = map(fields);
                let kept = Names::new(names.clone()).unwrap();
                variants.insert(Variant::new(kept, &fields, &HeaderMap::new(), id as u64).unwrap());
                requests.push((names, fields));
            }
            let request = map(request);
            let matches = |(names, fields): &(Vec<HeaderName>, HeaderMap)| {
                names.iter().all(|name| normalized(fields, name) == normalized(&request, name))
            };
            let found = variants.select(&request, true).map(Variant::id);
            match found {
                Some(id) => prop_assert!(matches(&requests[usize::try_from(id).unwrap()])),
                None => prop_assert!(!requests.iter().any(matches)),
            }
            prop_assert_eq!(Variants::decode(&variants.encode()), Some(variants));
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            if let Some(variants) = Variants::decode(&[&[VERSION], &bytes[..]].concat()) {
                prop_assert_eq!(variants.encode(), [&[VERSION], &bytes[..]].concat());
            }
        }
    }
}
