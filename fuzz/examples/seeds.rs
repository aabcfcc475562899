//! Writes the seed corpus: one or a few real encodings for each target.

use std::fs;
use std::path::Path;

use rawcached::clock::{TimePair, Timestamp};
use rawcached::format::{
    EntryHeader, Features, Footer, FooterRecord, Kind, Layout, LogKind, ObjectHead, PurgeRecord,
    Records, RegionHeader, RegionUse, Secret, Seed, Selector, Sequence, SliceKey,
    SnapshotDirectory, SnapshotPart, SnapshotPiece, SnapshotRow, Superblock, Tombstone, Uuid,
    body_checksums,
};
use rawcached::store::index::Index;
use rawcached::store::{Location, SizeClass};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&directory).expect("the directory of seeds");
    fs::write(directory.join(name), bytes).expect("a seed");
}

fn main() {
    superblocks();
    regions();
    entries();
    footers();
    records();
    memcached();
    http();
    http_response();
    http_cache();
    index_shard();
    snapshots();
    let shipped = include_bytes!("../../config/rawcached.toml");
    write("config", "shipped", shipped);
    write(
        "config",
        "small",
        b"[[device]]\npath = \"x.img\"\nsize = \"1GiB\"\n[ttl]\nmax = \"7d\"\n",
    );
    write("config", "size", b"16MiB");
    write("config", "duration", b"100ms");
}

fn superblocks() {
    for (name, size, alignment) in [("small", 16 << 20, 512), ("large", 1 << 43, 65536)] {
        let layout = Layout::plan(size, alignment, None).expect("a layout");
        let superblock = Superblock {
            uuid: Uuid([7; 16]),
            secret: Secret([9; 16]),
            layout,
            features: Features::default(),
            epoch: 3,
            purge_floor: Sequence(3 << 32),
            soft_floor: Sequence(0),
            record_floor: Sequence(0),
            formatted_at: 1_700_000_000,
            time: TimePair { cache: Timestamp(1), wall: 1_700_000_001 },
            unknown_age: 2,
        };
        write("superblock", name, &superblock.encode());
    }
}

fn regions() {
    let header = RegionHeader {
        generation: Sequence(1 << 32),
        region_use: RegionUse::Log,
        stamp: Timestamp(1_700_000_000),
        touched: true,
        log: LogKind::Purges,
    };
    write("region", "header", &header.encode(Uuid([7; 16]), 3));
    // The shape of slots, not their bytes: see the target.
    write("region", "slots", &(0..=255).collect::<Vec<u8>>());
}

fn entry(kind: Kind, key: &[u8], body: &[u8]) -> Vec<u8> {
    let check = body_checksums(body);
    let head_key = (kind == Kind::Slice).then_some(6);
    let records = Records { head_key, ..Records::default() }.encode();
    let covered = [key, &records, b"metadata", &check.table].concat();
    let header = EntryHeader {
        kind,
        supersedes: true,
        key_len: key.len() as u16,
        records_len: records.len() as u16,
        metadata_len: 8,
        body_len: body.len() as u32,
        sequence: Sequence(77),
        stored_at: Timestamp(1),
        age_secs: 4,
        fresh_until: Timestamp(2),
        keep_until: Timestamp(3),
        meta_checksum: crc32fast::hash(&covered),
        body_checksum: check.single,
    };
    [&header.encode(Seed(0x5eed), 4096)[..], &covered, body].concat()
}

fn entries() {
    write("entry", "object", &entry(Kind::Object, b"key", &[9; 300]));
    let head = ObjectHead { len: 3 << 20, object: Sequence(5), slice_size: 1 << 20 };
    write("entry", "head", &entry(Kind::Head, b"key", &head.encode()));
    let key = SliceKey::of_slice(Sequence(5), 2);
    write("entry", "slice", &entry(Kind::Slice, &key.encode(), &[1; 2000]));
}

fn footers() {
    for (name, count) in [("empty", 0), ("one", 1), ("many", 40)] {
        let record = |n: u64| FooterRecord {
            key_hash: n << 32,
            sequence: Sequence((1 << 32) + n + 1),
            offset: 4096 + n * 512,
            slot_len: 496,
            kind: Kind::Object,
            supersedes: n % 3 == 0,
            keep_until: Timestamp(1_800_000_000),
        };
        let tombstone = |n: u64| Tombstone { key_hash: n, sequence: Sequence(n) };
        let purge_record = |n: u64| PurgeRecord {
            sequence: Sequence(n),
            what: if n % 2 == 0 { Selector::Tag(n) } else { Selector::Prefix { len: 7, hash: n } },
            is_soft: n % 3 == 0,
        };
        let footer = Footer {
            records: (0..count).map(record).collect(),
            tombstones: (0..count / 2).map(tombstone).collect(),
            purge_records: (0..count / 4).map(purge_record).collect(),
        };
        let len = footer.len(512);
        let mut block = vec![0; len as usize];
        footer.encode_into(
            &mut block,
            (Sequence(1 << 32), LogKind::Data),
            Seed(0xf007),
            Timestamp(1_700_000_000),
        );
        write("footer", name, &block);
    }
}

fn records() {
    let mut tombstones = Vec::new();
    for n in 0..5 {
        Tombstone { key_hash: n, sequence: Sequence(n << 40) }.encode_into(&mut tombstones);
    }
    write("records", "kills", &tombstones);
    let head = ObjectHead { len: 3 << 20, object: Sequence(5), slice_size: 1 << 20 };
    write("records", "head", &head.encode());
    let records = Records {
        tags: vec![1, 2, 3],
        version: Some(Sequence(9)),
        is_stale: true,
        head_key: Some(7),
    };
    write("records", "optional", &records.encode());
    write("records", "slice", &SliceKey::of_slice(Sequence(5), 2).encode());
}

/// First the number of cuts and the cuts, then the stream.
fn memcached() {
    for (name, cuts, stream) in [
        ("whole", &[][..], "set k 1 0 3\r\nabc\r\nget k\r\ngets a b c\r\nquit\r\n"),
        ("bytes", &[1][..], "cas k 0 60 2 99 noreply\r\nhi\r\nincr n 5\r\ndecr n 1 noreply\r\n"),
        ("odd", &[2, 3, 5][..], "gat 60 a b\r\ntouch k -1\r\ndelete k 0 noreply\nflush_all 9\r\n"),
        ("meta", &[3, 9][..], "ms Zm9v 3 b T60 E5\r\nabc\r\nmg foo s v t k Ox N30 R9\r\nma n MD D2 q\r\nmd k I T1\r\nmn\r\n"),
        ("bad-meta", &[1][..], "ms k 3 !\r\nabc\r\nms k abc\r\nmg k v v\r\nme k b\r\nms k 0 7\r\n"),
        ("other", &[7, 1][..], "stats items\r\nversion\r\nverbosity 1\r\nbad\r\nset k 0 0 x\r\n"),
    ] {
        let cuts_len = [u8::try_from(cuts.len()).expect("few cuts")];
        write("memcached", name, &[&cuts_len[..], cuts, stream.as_bytes()].concat());
    }
}

fn http_cache() {
    let validator = "etag: \"a\"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    for (name, numbers, heads) in [
        (
            "fresh",
            [0, 0, 1, 0],
            ["accept: a, b", "cache-control: max-age=60\nvary: accept", "accept: b,A", ""],
        ),
        (
            "validated",
            [0, 0, 9, 0],
            ["", "cache-control: s-maxage=1, stale-if-error=9", "", validator],
        ),
        (
            "targeted",
            [0, 0, 0, 0],
            [
                "",
                "cdn-cache-control: max-age=9, no-cache=\"x\"\nage: 3",
                "",
                "cache-control: no-store",
            ],
        ),
        (
            "language",
            [0, 0, 0, 1],
            [
                "accept-language: de, en",
                "cache-control: public, max-age=9\nvary: accept-language\ncontent-language: de",
                "accept-language: de;q=0.9",
                "",
            ],
        ),
        (
            "part",
            [0, 6, 0, 4],
            [
                "range: bytes=0-4",
                "cache-control: max-age=9\ncontent-range: bytes 0-4/1000\netag: \"a\"",
                "range: bytes=0-1,3-4",
                "",
            ],
        ),
        (
            "post",
            [2, 1, 0, 0],
            [
                "",
                "location: ../x\ncontent-location: page\nexpires: Sun, 06 Nov 2094 08:49:37 GMT\ncache-group-invalidation: \"a\"",
                "",
                "",
            ],
        ),
        (
            "private",
            [0, 0, 0, 0],
            [
                "authorization: x",
                "cache-control: private=\"set-cookie\", must-revalidate, max-age=5\nset-cookie: a\nxkey: a b\ncache-groups: \"g\"",
                "if-none-match: *",
                validator,
            ],
        ),
    ] {
        write("http_cache", name, &[&numbers[..], heads.join("\0").as_bytes()].concat());
    }
}

fn http() {
    let put = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n";
    let get =
        "GET http://[::1]:80/v1/objects/%6b?a HTTP/1.1\r\nHost: x:80\r\nRange: bytes=0-\r\n\r\n";
    let length = "Content-Length: 3\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let chunks = "4;a=\"b\"\r\nabcd\r\n0A\r\n0123456789\r\n0\r\nT: x\r\n\r\n";
    let many = "Connection: close, x\r\nX:\r\n".repeat(50);
    for (name, cuts, stream) in [
        ("length", &[][..], format!("{put}{length}Expect: 100-continue\r\n\r\nabc{get}")),
        ("chunks", &[1, 7, 2][..], format!("{put}{chunked}{chunks}{get}")),
        ("old", &[5][..], format!("\r\n{}{get}", get.replace("1.1", "1.0"))),
        ("many", &[200][..], format!("{put}{many}\r\n")),
        ("both", &[][..], format!("{put}{length}{chunked}")),
    ] {
        let cuts_len = [u8::try_from(cuts.len()).expect("few cuts")];
        write("http", name, &[&cuts_len[..], cuts, stream.as_bytes()].concat());
    }
}

fn http_response() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let length = "Content-Length: 3\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let many = "Connection: close, x\r\nX:\r\n".repeat(50);
    for (name, cuts, stream) in [
        ("length", &[][..], format!("{interim}{ok}{length}\r\n{ok}{chunked}\r\n")),
        (
            "old",
            &[5][..],
            format!("HTTP/1.0 404 \r\n{length}Connection: keep-alive\r\n\r\n{ok}\r\n"),
        ),
        (
            "bodiless",
            &[1, 7, 2][..],
            format!("HTTP/1.1 204\r\n{length}\r\nHTTP/1.1 304 x\r\n{length}\r\n"),
        ),
        ("many", &[200][..], format!("{ok}{many}\r\n")),
        ("both", &[][..], format!("{ok}{length}{chunked}\r\n")),
    ] {
        let cuts_len = [u8::try_from(cuts.len()).expect("few cuts")];
        write("http_response", name, &[&cuts_len[..], cuts, stream.as_bytes()].concat());
    }
}

fn index_shard() {
    let index = Index::new();
    for n in 1..60u64 {
        // The low bits name the shard: all in the one that is dumped.
        let key_hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) << 12;
        index.lock(key_hash).insert(Location(n * 31), SizeClass::of(n * 500));
    }
    let shard = (0..index.shard_count()).find(|shard| {
        let mut dumped = Vec::new();
        index.dump_shard(*shard, &mut dumped);
        dumped.len() > 100
    });
    let mut dumped = Vec::new();
    index.dump_shard(shard.expect("a shard with words"), &mut dumped);
    write("index_shard", "words", &dumped);
    write("index_shard", "empty", &[0; 4]);
}

fn snapshots() {
    let seed = Seed(0x51a9);
    for (name, count) in [("empty", 0), ("one", 1), ("full", 680)] {
        let piece = |n: u32| {
            let of = if n == 0 { SnapshotPart::Regions } else { SnapshotPart::Shards(n % 256) };
            SnapshotPiece::new(of, seed, 20_480 + u64::from(n) * 512, &n.to_le_bytes())
        };
        let directory = SnapshotDirectory {
            name: Sequence(3 << 32),
            epoch: 3,
            part: 0,
            part_count: 1,
            purge_floor: Sequence(2 << 32),
            stamp: Timestamp(1_700_000_000),
            shard_count: 4096,
            pieces: (0..count).map(piece).collect(),
        };
        let bytes = directory.encode(seed);
        // What is behind the last piece is zero.
        write("snapshot", name, &bytes[..64 + count as usize * 24]);
    }
    let mut rows = Vec::new();
    for n in 0..8u64 {
        let row = SnapshotRow {
            generation: Sequence((1 << 32) + n),
            sealed: n % 2 == 0,
            touched: n % 3 == 0,
            keep_until: Timestamp(1_800_000_000),
            tombstones: n,
            log: LogKind::Data,
            live_bytes: n << 20,
        };
        row.encode_into(&mut rows);
    }
    write("snapshot", "rows", &rows);
}
