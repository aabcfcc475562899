//! Goal: of a large object only those bytes are asked for that somebody wants, each once, and stored for all.
//! Method: an origin that knows ranges and counts what it sends; blocks of 256 KiB.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::proxy::client::End;
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply, Step};
use crate::proxy::rig::Rig;
use crate::support::waiting::eventually;

const KIB: u64 = 1 << 10;
const BLOCK: u64 = 256 * KIB;
/// Nine blocks and a little more.
const LEN: u64 = 9 * BLOCK + 1234;

/// The byte at a position of version `version`.
fn byte(at: u64, version: u64) -> u8 {
    (at.wrapping_add(version * 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bytes(range: Range<u64>, version: u64) -> Vec<u8> {
    range.map(|at| byte(at, version)).collect()
}

type Change = fn(Reply) -> Reply;

/// What an origin has, and what it sent.
#[derive(Default)]
struct Video {
    version: AtomicU64,
    sent: AtomicU64,
    /// What to do instead for the request of this number.
    instead: Mutex<BTreeMap<usize, Change>>,
    /// Within the body of the response of this number, at this byte.
    within: Mutex<Option<(usize, usize, Vec<Step>)>>,
}

impl Video {
    fn waits(&self, number: usize, len: usize, latch: &Latch) {
        *self.within.lock().unwrap() = Some((number, len, vec![Step::Wait(latch.clone())]));
    }

    fn reply(&self, seen: &Seen) -> Reply {
        let version = self.version.load(Ordering::Relaxed);
        let tag = format!("\"v{version}\"");
        let is_current = seen.header("if-range").is_none_or(|tag_given| tag_given == tag);
        let range = seen.header("range").filter(|_| is_current).map(|text| {
            let (first, last) = text.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let last: u64 = if last.is_empty() { LEN - 1 } else { last.parse().unwrap() };
            first.parse().unwrap()..(last + 1).min(LEN)
        });
        if seen.header("if-none-match") == Some(&tag) {
            return Reply::not_modified().control("max-age=60").header("ETag", &tag);
        }
        let reply = match &range {
            Some(range) if range.is_empty() => Reply::of("416 Range Not Satisfiable", "")
                .header("Content-Range", &format!("bytes */{LEN}")),
            Some(range) => Reply::of("206 Partial Content", bytes(range.clone(), version))
                .header("Content-Range", &format!("bytes {}-{}/{LEN}", range.start, range.end - 1)),
            None => Reply::ok(bytes(0..LEN, version)).header("Accept-Ranges", "bytes"),
        };
        let len = range.map_or(LEN, |range| range.end.saturating_sub(range.start));
        self.sent.fetch_add(len, Ordering::Relaxed);
        let reply = reply.control("max-age=60").header("ETag", &tag);
        if let Some((number, len, steps)) = &*self.within.lock().unwrap()
            && *number == seen.order
        {
            return reply.ends_at(*len, steps.clone());
        }
        match self.instead.lock().unwrap().get(&seen.order) {
            Some(change) => change(reply),
            None => reply,
        }
    }
}

fn rig_with(range_fetch_min: u64) -> (Rig, Arc<Video>) {
    let video = Arc::new(Video::default());
    let origin = video.clone();
    let rig = Rig::with(Origin::start(move |seen| origin.reply(seen)), |proxy| {
        proxy.range_fetch_min = range_fetch_min;
        proxy.fill_block = BLOCK;
    });
    (rig, video)
}

fn rig() -> (Rig, Arc<Video>) {
    rig_with(BLOCK)
}

fn field(range: &Range<u64>) -> String {
    format!("Range: bytes={}-{}\r\n", range.start, range.end - 1)
}

/// Asks for a range, and checks what comes.
#[track_caller]
fn part(rig: &Rig, range: Range<u64>) -> crate::proxy::client::Answer {
    let answer = rig.get_with("/v", &field(&range));
    let answer = answer.expect_body(206, bytes(range.clone(), 0));
    let expected = format!("bytes {}-{}/{LEN}", range.start, range.end - 1);
    assert_eq!(answer.header("content-range"), Some(&*expected));
    answer
}

fn ranges_asked(rig: &Rig) -> Vec<String> {
    let range = |seen: &Seen| seen.header("range").unwrap_or("all").to_owned();
    rig.origin.seen().iter().filter(|seen| seen.method == "GET").map(range).collect()
}

/// Waits until what was asked for is stored to its end.
#[track_caller]
fn settle(rig: &Rig, end: u64) {
    part(rig, end - 1..end);
}

#[test]
fn a_range_is_asked_for_to_the_end_of_its_block() {
    let (rig, video) = rig();
    let first = part(&rig, 3 * BLOCK + 100..3 * BLOCK + 200);
    assert!(first.expect_forwarded("uri-miss").verdict().stored);
    assert_eq!(ranges_asked(&rig), [format!("bytes={}-{}", 3 * BLOCK, 4 * BLOCK - 1)]);
    assert!(eventually(|| {
        let whole = rig.get_with("/v", &field(&(3 * BLOCK + 7..4 * BLOCK)));
        whole.expect_body(206, bytes(3 * BLOCK + 7..4 * BLOCK, 0)).verdict().hit
    }));
    assert_eq!(rig.origin.count(), 1);
    assert_eq!(video.sent.load(Ordering::Relaxed), BLOCK);
}

#[test]
fn what_is_missing_is_asked_for_with_if_range_and_the_whole_is_completed() {
    let (rig, video) = rig();
    part(&rig, 2 * BLOCK + 5..2 * BLOCK + 9);
    let far = 5 * BLOCK + 130 * KIB;
    part(&rig, far..far + 10).expect_forwarded("partial");
    assert_eq!(rig.origin.last().header("if-range"), Some("\"v0\""));
    assert_eq!(
        rig.origin.last().header("range"),
        Some(&*format!("bytes={}-{}", 5 * BLOCK + 128 * KIB, 6 * BLOCK - 1))
    );
    let whole = rig.get("/v").expect_body(200, bytes(0..LEN, 0));
    assert_eq!(whole.header("content-range"), None);
    whole.expect_forwarded("partial");
    assert_eq!(video.sent.load(Ordering::Relaxed), LEN, "each byte once: {:?}", ranges_asked(&rig));
    rig.settled("/v", "").expect_body(200, bytes(0..LEN, 0)).expect_hit();
    assert_eq!(
        rig.ask("HEAD", "/v", "", b"").expect_hit().header("content-length"),
        Some(&*LEN.to_string())
    );
}

#[test]
fn the_next_block_is_asked_for_ahead_where_all_of_one_is_there_already() {
    let (rig, _) = rig_with(0);
    part(&rig, 0..6 * BLOCK);
    settle(&rig, 6 * BLOCK);
    let blocks_ahead = || rig.server.counters.snapshot().proxy.blocks_ahead;
    let before = blocks_ahead();
    part(&rig, 0..7 * BLOCK);
    let asked = format!("bytes={}-{}", 6 * BLOCK, 7 * BLOCK - 1);
    assert_eq!(rig.origin.last().header("range"), Some(&*asked));
    assert_eq!(blocks_ahead(), [before[0] + 1, before[1]]);
}

#[test]
fn what_is_missing_far_behind_is_asked_for_when_its_turn_comes() {
    let (rig, _) = rig_with(0);
    part(&rig, 0..5 * BLOCK);
    settle(&rig, 5 * BLOCK);
    part(&rig, 6 * BLOCK..LEN);
    settle(&rig, LEN);
    let asked = rig.origin.count();
    // The beginning is there: the answer is a hit, and begins without a word of the origin.
    let whole = rig.get("/v").expect_body(200, bytes(0..LEN, 0)).expect_hit();
    assert_eq!(whole.header("etag"), Some("\"v0\""));
    assert_eq!(ranges_asked(&rig)[asked..], [format!("bytes={}-{}", 5 * BLOCK, 6 * BLOCK - 1)]);
    rig.get("/v").expect_body(200, bytes(0..LEN, 0)).expect_hit();
    rig.expect_asked(asked + 1);
    // Who may not ask has no answer that breaks off.
    let (rig, video) = rig_with(0);
    part(&rig, 0..5 * BLOCK);
    settle(&rig, 5 * BLOCK);
    rig.get_with("/v", "Cache-Control: only-if-cached\r\n").expect(504);
    // A version that is no more there cuts the answer.
    video.version.store(1, Ordering::Relaxed);
    let answer = rig.get("/v");
    assert_eq!((answer.status, answer.end), (200, End::Cut), "{answer:?}");
    assert!(bytes(0..LEN, 0).starts_with(&answer.body));
    // It is gone: nobody is cut for it once more.
    rig.get("/v").expect_body(200, bytes(0..LEN, 1));
}

#[test]
fn a_range_across_blocks_and_several_ranges_come_whole() {
    let (rig, video) = rig();
    part(&rig, BLOCK + 10..4 * BLOCK + 10);
    let two =
        format!("Range: bytes={}-{}, {}-{}\r\n", 6 * BLOCK, 6 * BLOCK + 4, 8 * BLOCK, LEN - 1);
    let answer = rig.get_with("/v", &two).expect(206);
    assert!(answer.header("content-type").unwrap().starts_with("multipart/byteranges"));
    let tail = bytes(8 * BLOCK..LEN, 0);
    assert!(answer.body.windows(tail.len()).any(|found| found == tail));
    assert!(video.sent.load(Ordering::Relaxed) <= LEN, "{:?}", ranges_asked(&rig));
}

#[test]
fn the_head_of_a_partial_object_answers_for_itself() {
    let (rig, _) = rig();
    part(&rig, 2 * BLOCK..2 * BLOCK + 9);
    rig.ask("HEAD", "/v", "", b"").expect_hit();
    rig.get_with("/v", "If-None-Match: \"v0\"\r\n").expect_body(304, "").expect_hit();
    let beyond = rig.get_with("/v", &format!("Range: bytes={LEN}-\r\n")).expect(416).expect_hit();
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{LEN}")));
    let cached = "Cache-Control: only-if-cached\r\n";
    let here = format!("{cached}{}", field(&(2 * BLOCK..2 * BLOCK + 5)));
    rig.get_with("/v", &here).expect(206).expect_hit();
    rig.get_with("/v", cached).expect(504);
    rig.get_with("/v", &format!("{cached}{}", field(&(0..5)))).expect(504);
    rig.expect_asked(1);
}

#[test]
fn who_may_store_nothing_asks_alone_for_what_is_missing() {
    let (rig, video) = rig();
    part(&rig, 2 * BLOCK..2 * BLOCK + 9);
    settle(&rig, 3 * BLOCK);
    let range = 5 * BLOCK + 10..5 * BLOCK + 20;
    let fields = format!("Authorization: x\r\n{}", field(&range));
    let answer = rig.get_with("/v", &fields).expect_body(206, bytes(range.clone(), 0));
    assert!(!answer.expect_forwarded("partial").verdict().stored);
    assert_eq!(ranges_asked(&rig)[1], format!("bytes={}-{}", range.start, range.end - 1));
    assert_eq!(video.sent.load(Ordering::Relaxed), BLOCK + 10);
    // It has what is stored, and harms nobody.
    let here = format!("Authorization: x\r\n{}", field(&(2 * BLOCK..2 * BLOCK + 9)));
    rig.get_with("/v", &here).expect(206).expect_hit();
    part(&rig, range).expect_forwarded("partial");
    part(&rig, 2 * BLOCK..2 * BLOCK + 9).expect_hit();
}

#[test]
fn another_version_begins_anew() {
    let (rig, video) = rig();
    part(&rig, 2 * BLOCK..2 * BLOCK + 9);
    settle(&rig, 3 * BLOCK);
    video.version.store(1, Ordering::Relaxed);
    let range = 4 * BLOCK..4 * BLOCK + 9;
    rig.get_with("/v", &field(&range))
        .expect_body(206, bytes(range, 1))
        .expect_forwarded("uri-miss");
    let range = 2 * BLOCK..2 * BLOCK + 9;
    rig.get_with("/v", &field(&range)).expect_body(206, bytes(range, 1));
    rig.get("/v").expect_body(200, bytes(0..LEN, 1));
}

#[test]
fn a_version_that_changes_within_an_answer_cuts_it() {
    let (rig, video) = rig();
    part(&rig, BLOCK..BLOCK + 9);
    settle(&rig, 2 * BLOCK);
    // The blocks before the one that is there come of this version, and what follows of another.
    let latch = Latch::default();
    video.waits(1, 10, &latch);
    let mut client = rig.client();
    client.send("GET /v HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut answer = client.head("GET");
    rig.origin.wait_for(2);
    video.version.store(1, Ordering::Relaxed);
    latch.open();
    client.read_to(&mut answer, usize::MAX);
    assert_eq!(answer.end, End::Cut);
    assert!(bytes(0..LEN, 0).starts_with(&answer.body), "no byte of another version");
    rig.get("/v").expect_body(200, bytes(0..LEN, 1));
}

#[test]
fn a_stale_object_is_validated_without_its_body() {
    let (rig, video) = rig();
    part(&rig, 3 * BLOCK..3 * BLOCK + 9);
    settle(&rig, 4 * BLOCK);
    let sent = video.sent.load(Ordering::Relaxed);
    rig.pass(61);
    let answer = part(&rig, 3 * BLOCK..3 * BLOCK + 9).expect_forwarded("stale");
    assert_eq!(answer.verdict().forwarded_status, Some(304));
    assert_eq!(video.sent.load(Ordering::Relaxed), sent);
    part(&rig, 3 * BLOCK + 1..3 * BLOCK + 9).expect_hit();
}

#[test]
fn those_who_want_one_block_share_its_request() {
    let (rig, video) = rig();
    let latch = Latch::default();
    video.waits(0, 100, &latch);
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..20)
            .map(|n| {
                let rig = &rig;
                scope.spawn(move || part(rig, 2 * BLOCK + n..2 * BLOCK + 200 * KIB + n))
            })
            .collect();
        rig.origin.wait_for(1);
        std::thread::sleep(crate::proxy::rig::SOON);
        assert_eq!(rig.origin.count(), 1);
        latch.open();
        for ask in asks {
            ask.join().unwrap();
        }
    });
    settle(&rig, 3 * BLOCK);
    assert_eq!(rig.origin.count(), 1, "{:?}", ranges_asked(&rig));
}

#[test]
fn an_upstream_that_breaks_off_is_asked_for_the_rest() {
    let (rig, video) = rig();
    video.instead.lock().unwrap().insert(0, |reply| reply.ends_at(200 << 10, vec![Step::Close]));
    let range = 2 * BLOCK..3 * BLOCK;
    part(&rig, range.clone()).expect_forwarded("uri-miss");
    let rest = format!("bytes={}-{}", range.start + 200 * KIB, range.end - 1);
    assert_eq!(ranges_asked(&rig)[1..], [rest]);
    part(&rig, range).expect_hit();
}

#[test]
fn a_whole_that_breaks_off_goes_on_too() {
    let (rig, video) = rig();
    video.instead.lock().unwrap().insert(0, |reply| reply.ends_at(600 << 10, vec![Step::Close]));
    rig.get("/v").expect_body(200, bytes(0..LEN, 0)).expect_forwarded("uri-miss");
    assert_eq!(ranges_asked(&rig)[1], format!("bytes={}-{}", 600 * KIB, 3 * BLOCK - 1));
    rig.get("/v").expect_body(200, bytes(0..LEN, 0)).expect_hit();
}

#[test]
fn an_upstream_that_dies_cuts_all_and_what_came_stays() {
    let (rig, video) = rig();
    let latch = Latch::default();
    let steps = vec![Step::Wait(latch.clone()), Step::Close];
    *video.within.lock().unwrap() = Some((0, 600 << 10, steps));
    for n in 1..100 {
        video.instead.lock().unwrap().insert(n, |_| Reply::close());
    }
    std::thread::scope(|scope| {
        let ask = |n: u64| {
            let rig = &rig;
            scope.spawn(move || match n % 2 {
                0 => (0, rig.get("/v")),
                _ => (BLOCK, rig.get_with("/v", &field(&(BLOCK..LEN)))),
            })
        };
        let mut asks = vec![ask(0)];
        rig.origin.wait_for(1);
        asks.extend((1..20).map(ask));
        std::thread::sleep(crate::proxy::rig::SOON);
        latch.open();
        for ask in asks {
            let (start, cut) = ask.join().unwrap();
            // Who comes late is told before there is a body.
            if cut.status != 502 {
                assert_eq!(cut.end, End::Cut, "{cut:?}");
                assert!(bytes(start..LEN, 0).starts_with(&cut.body));
            }
        }
    });
    let asked = rig.origin.count();
    assert!(asked <= 8, "{asked} requests for one rest");
    part(&rig, 0..512 * KIB).expect_hit();
    video.instead.lock().unwrap().clear();
    rig.pass(2);
    rig.get("/v").expect_body(200, bytes(0..LEN, 0)).expect_forwarded("partial");
}

#[test]
fn who_wants_the_end_of_a_whole_that_is_coming_does_not_wait_for_it() {
    let (rig, video) = rig();
    let latch = Latch::default();
    video.waits(0, 100_000, &latch);
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| rig.get("/v"));
        rig.origin.wait_for(1);
        assert!(eventually(|| rig.ask("HEAD", "/v", "", b"").verdict().hit));
        part(&rig, 8 * BLOCK + 5..LEN).expect_forwarded("partial");
        latch.open();
        whole.join().unwrap().expect_body(200, bytes(0..LEN, 0)).expect_forwarded("uri-miss");
    });
    assert_eq!(
        ranges_asked(&rig)[..2],
        ["all".to_owned(), format!("bytes={}-{}", 8 * BLOCK, 9 * BLOCK - 1)]
    );
    rig.settled("/v", "").expect_body(200, bytes(0..LEN, 0)).expect_hit();
}

#[test]
fn a_purge_while_parts_come_lets_their_clients_end_and_stores_nothing() {
    for how in ["uri", "all"] {
        let (rig, video) = rig();
        let latch = Latch::default();
        video.waits(0, 100_000, &latch);
        let range = 2 * BLOCK..4 * BLOCK;
        let mut client = rig.client();
        client.send(format!("GET /v HTTP/1.1\r\nHost: h\r\n{}\r\n", field(&range)));
        let mut answer = client.head("GET");
        client.read_to(&mut answer, 1000);
        let body = match how {
            "uri" => r#"{"type": "uri", "selectors": ["http://h/v"]}"#,
            _ => r#"{"type": "all"}"#,
        };
        let mut purger = crate::proxy::client::Client::open(&rig.objects);
        assert_eq!(purger.ask("POST", "/v1/purge", "", body.as_bytes()).status, 200);
        latch.open();
        let answer = client.finish(answer).expect_body(206, bytes(range.clone(), 0));
        assert_eq!(answer.end, End::Whole);
        rig.get_with("/v", &field(&(2 * BLOCK..2 * BLOCK + 9))).expect_forwarded("uri-miss");
    }
}

#[test]
fn without_a_strong_validator_all_get_the_whole() {
    let rig = Rig::with(
        Origin::start(|seen| {
            let reply = match seen.header("range") {
                Some(_) => Reply::of("206 Partial Content", "1234567")
                    .header("Content-Range", "bytes 262144-262150/262151"),
                None => Reply::ok(vec![b'x'; 262_151]),
            };
            reply.control("max-age=60").header("ETag", "W/\"a\"")
        }),
        |proxy| (proxy.range_fetch_min, proxy.fill_block) = (BLOCK, BLOCK),
    );
    let field = "Range: bytes=262144-262150\r\n";
    rig.get_with("/v", field).expect_body(206, "xxxxxxx").expect_forwarded("uri-miss");
    assert_eq!(ranges_asked(&rig), ["bytes=262144-524287", "all"]);
    rig.settled("/v", field).expect_body(206, "xxxxxxx").expect_hit();
    rig.expect_asked(2);
}

#[test]
fn beyond_the_end_the_whole_answers() {
    let (rig, _) = rig();
    let field = format!("Range: bytes={}-\r\n", 20 * BLOCK);
    rig.get_with("/v", &field).expect(416).expect_forwarded("uri-miss");
    rig.get_with("/v", &field).expect(416).expect_hit();
    rig.expect_asked(2);
}

#[test]
fn an_origin_that_gives_less_than_it_is_asked_for_is_asked_again() {
    let rig = Rig::with(
        Origin::start(|seen| {
            let text = seen.header("range").unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = text.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let end = (last + 1).min(first + 100_000).min(LEN);
            Reply::of("206 Partial Content", bytes(first..end, 0))
                .header("Content-Range", &format!("bytes {first}-{}/{LEN}", end - 1))
                .header("ETag", "\"v0\"")
                .control("max-age=60")
        }),
        |proxy| (proxy.range_fetch_min, proxy.fill_block) = (BLOCK, BLOCK),
    );
    part(&rig, BLOCK..3 * BLOCK);
    part(&rig, BLOCK + 1..3 * BLOCK - 1).expect_hit();
}

/// One client is refused, or gets cookies with its part: that is no word on the object.
#[test]
fn what_one_client_is_told_harms_no_other() {
    let refusals: [Change; 5] = [
        |_| Reply::of("403 Forbidden", "no"),
        |_| Reply::of("429 Too Many Requests", "later"),
        |_| Reply::of("302 Found", "").header("Location", "/login"),
        |reply| reply.header("Set-Cookie", "a=b"),
        |_| Reply::ok("log in").header("Set-Cookie", "a=b").control("private"),
    ];
    for (n, told) in refusals.into_iter().enumerate() {
        let (rig, video) = rig();
        part(&rig, 2 * BLOCK..2 * BLOCK + 9);
        settle(&rig, 3 * BLOCK);
        video.instead.lock().unwrap().insert(1, told);
        video.instead.lock().unwrap().insert(2, told);
        let far = field(&(5 * BLOCK..5 * BLOCK + 9));
        let refused = rig.get_with("/v", &far);
        assert!(matches!(refused.status, 200 | 206 | 302 | 403 | 429), "{n}: {refused:?}");
        assert_eq!(rig.origin.count(), 3, "{n}");
        part(&rig, 2 * BLOCK..2 * BLOCK + 9).expect_hit();
        part(&rig, 5 * BLOCK..5 * BLOCK + 9).expect_forwarded("partial");
        part(&rig, 2 * BLOCK..2 * BLOCK + 9).expect_hit();
    }
}

#[test]
fn an_origin_without_ranges_is_asked_for_the_whole() {
    let body = bytes(0..LEN, 0);
    let given = body.clone();
    let rig = Rig::with(
        Origin::start(move |_| Reply::ok(&given).control("max-age=60").header("ETag", "\"a\"")),
        |proxy| (proxy.range_fetch_min, proxy.fill_block) = (BLOCK, BLOCK),
    );
    let range = 2 * BLOCK..2 * BLOCK + 9;
    let expected = bytes(range.clone(), 0);
    rig.get_with("/v", &field(&range)).expect_body(206, &expected);
    assert_eq!(ranges_asked(&rig), [format!("bytes={}-{}", range.start, 3 * BLOCK - 1)]);
    rig.get("/v").expect_body(200, &body);
    rig.settled("/v", &field(&range)).expect_body(206, &expected).expect_hit();
}

#[test]
fn variants_come_part_by_part_too() {
    let (rig, _) = {
        let video = Arc::new(Video::default());
        let origin = video.clone();
        let rig = Rig::with(
            Origin::start(move |seen| origin.reply(seen).header("Vary", "X-A")),
            |proxy| (proxy.range_fetch_min, proxy.fill_block) = (BLOCK, BLOCK),
        );
        (rig, video)
    };
    let ask = |name: &str, range: &Range<u64>| {
        rig.get_with("/v", &format!("X-A: {name}\r\n{}", field(range)))
            .expect_body(206, bytes(range.clone(), 0))
    };
    let range = 2 * BLOCK..2 * BLOCK + 9;
    ask("1", &range).expect_forwarded("uri-miss");
    ask("1", &(3 * BLOCK - 1..3 * BLOCK));
    ask("2", &range).expect_forwarded("vary-miss");
    ask("2", &(3 * BLOCK - 1..3 * BLOCK));
    ask("1", &range).expect_hit();
    ask("2", &range).expect_hit();
    ask("1", &(4 * BLOCK..4 * BLOCK + 9)).expect_forwarded("partial");
    rig.expect_asked(3);
}

/// As a player does: many at once, each somewhere else, cold.
#[test]
fn many_clients_with_random_ranges_cost_each_byte_once() {
    let (rig, video) = rig();
    std::thread::scope(|scope| {
        for n in 0..40u64 {
            let rig = &rig;
            scope.spawn(move || {
                let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for _ in 0..6 {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let start = BLOCK + (state >> 20) % (LEN - BLOCK - 1);
                    let len = 1 + (state >> 8) % (400 * KIB);
                    part(rig, start..(start + len).min(LEN));
                }
            });
        }
    });
    let sent = video.sent.load(Ordering::Relaxed);
    assert!(sent <= LEN + LEN / 20, "{sent} of {LEN}: {:?}", ranges_asked(&rig));
}
