//! The kinds of clients that harm. Each goes on until the arena closes, whatever is answered.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::crowd::{hold, is_silent, offer, open, open_impatient, takes};
use crate::support::http::{Connection, target};
use crate::support::memcached::Client;
use crate::{Arena, honest};

const MIB: usize = 1 << 20;
/// Large values that many ask for.
const BIG_KEYS: usize = 8;
/// How often held connections are looked after.
const TURN: Duration = Duration::from_millis(500);

type Kind = fn(&Arena);

/// Each has a thread of its own, some several.
pub const KINDS: [(&str, usize, Kind); 17] = [
    ("stand still over memcached", 1, stand_over_memcached),
    ("stand still over HTTP", 1, stand_over_http),
    ("half-sent sets", 1, half_sets),
    ("uploads that trickle", 1, trickle),
    ("half lines", 1, half_lines),
    ("half heads", 1, half_heads),
    ("gets of many misses", 4, misses),
    ("changes that nobody waits for", 4, changes),
    ("refused storage lines", 1, refused_lines),
    ("HTTP to memcached", 1, wrong_protocol),
    ("framing attacks", 1, framing),
    ("open and drop", 2, open_and_drop),
    ("tiny values", 1, tiny_values),
    ("slow readers", 8, read_slowly),
    ("metrics that nobody reads", 1, unread_metrics),
    ("uploads that stop", 4, stopped_uploads),
    ("purges", 1, purges),
];

fn big_key(n: usize) -> String {
    format!("big-{}", n % BIG_KEYS)
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Runs `action` again and again.
fn again(arena: &Arena, milliseconds: u64, mut action: impl FnMut(usize) -> io::Result<()>) {
    for turn in 0.. {
        if arena.is_closed() {
            return;
        }
        // Hostile clients do not mind how they are answered.
        let _ = action(turn);
        pause(milliseconds);
    }
}

/// One request on a connection of its own, and what comes of an answer in a moment.
fn throw(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut stream = open_impatient(path)?;
    stream.write_all(bytes)?;
    stream.read(&mut [0; 4096]).map(drop)
}

/// Stores the large values anew: they are purged and pushed out.
fn store_big(arena: &Arena, n: usize) -> io::Result<()> {
    let mut stream = open_impatient(&arena.memcached)?;
    stream.write_all(format!("set {} 0 0 {MIB}\r\n", big_key(n)).as_bytes())?;
    stream.write_all(&arena.noise[..MIB])?;
    stream.write_all(b"\r\n")?;
    stream.read(&mut [0; 64]).map(drop)
}

fn stand_over_memcached(arena: &Arena) {
    stand(arena, &arena.memcached, 240, |n| format!("get {}\r\n", big_key(n)));
}

fn stand_over_http(arena: &Arena) {
    stand(arena, &arena.http, 60, |n| {
        format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", target(&big_key(n)))
    });
}

/// Clients that ask for much and read nothing; every other one asks on and on.
fn stand(arena: &Arena, path: &Path, count: usize, request: impl Fn(usize) -> String) {
    let open = |n: usize| {
        let stream = open(path)?;
        offer(&stream, request(n).repeat(if n.is_multiple_of(2) { 2 } else { 2000 }).as_bytes());
        Ok(stream)
    };
    let mut stored = 0;
    let one_more = request(0);
    hold(arena, count, TURN, open, |stream| {
        stored += 1;
        if stored % count == 0 {
            let _ = store_big(arena, stored / count);
        }
        takes(stream, one_more.as_bytes())
    });
}

/// Sets of 1 MiB of which nothing comes, or a half.
fn half_sets(arena: &Arena) {
    let open = |n: usize| {
        let stream = open(&arena.memcached)?;
        offer(&stream, format!("set evil-{n} 0 0 {MIB}\r\n").as_bytes());
        if n.is_multiple_of(2) {
            offer(&stream, &arena.noise[..MIB / 2]);
        }
        Ok(stream)
    };
    hold(arena, 40, TURN, open, is_silent);
}

/// 500 uploads that send a byte now and then.
fn trickle(arena: &Arena) {
    let open = |n: usize| {
        let stream = open(&arena.http)?;
        let len = if n.is_multiple_of(10) { 20 * MIB } else { MIB };
        let target = target(&format!("trickle-{n}"));
        let head = format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
        offer(&stream, head.as_bytes());
        Ok(stream)
    };
    hold(arena, 500, TURN, open, |stream| is_silent(stream) && takes(stream, b"x"));
}

fn half_lines(arena: &Arena) {
    let line = format!("get {}", "key-of-a-line ".repeat(9000));
    let open = |n: usize| {
        let stream = open(&arena.memcached)?;
        offer(&stream, &line.as_bytes()[..(n + 1) * (120 << 10) / 40]);
        Ok(stream)
    };
    hold(arena, 40, TURN, open, is_silent);
}

fn half_heads(arena: &Arena) {
    let fields = "X-Field: and what it says\r\n".repeat(5000);
    let open = |n: usize| {
        let stream = open(&arena.http)?;
        offer(&stream, b"GET /v1/objects/head HTTP/1.1\r\nHost: x\r\n");
        offer(&stream, &fields.as_bytes()[..(n + 1) * (120 << 10) / 40]);
        Ok(stream)
    };
    hold(arena, 40, TURN, open, is_silent);
}

fn misses(arena: &Arena) {
    let keys = (0..95_000).map(|n| format!(" miss-{n}"));
    let line = format!("get{}\r\n", keys.collect::<String>());
    assert!((MIB - (100 << 10)..MIB).contains(&line.len()), "{}", line.len());
    again(arena, 20, |_| {
        let mut stream = open_impatient(&arena.memcached)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(line.as_bytes())?;
        stream.read(&mut [0; 64]).map(drop)
    });
}

/// Changes of one small and one large value by clients that leave at once.
fn changes(arena: &Arena) {
    let patch = |key: &str| {
        format!(
            "PATCH {} HTTP/1.1\r\nHost: x\r\nCache-Control: max-age=60\r\nX-Turn: y\r\n\r\n",
            target(key)
        )
    };
    let append = |key: &str| format!("append {key} 0 0 1\r\nx\r\n");
    again(arena, 5, |turn| {
        if turn % 1000 == 0 {
            let mut client = Client::over(open_impatient(&arena.memcached)?);
            client.try_send(format!("set changed-small 0 0 {}\r\n", 100 << 10))?;
            client.try_send(&arena.noise[..100 << 10])?;
            client.try_send(format!("\r\nset changed-large 0 0 {}\r\n", 16 * MIB))?;
            for _ in 0..16 {
                client.try_send(&arena.noise[..MIB])?;
            }
            client.try_send("\r\n")?;
            client.try_line()?;
            client.try_line()?;
        }
        let key = if turn % 2 == 0 { "changed-small" } else { "changed-large" };
        let (path, request) = match turn / 2 % 3 {
            0 => (&arena.http, patch(key)),
            1 => (&arena.memcached, append(key)),
            _ => (&arena.memcached, append(key).replace("append", "prepend")),
        };
        open_impatient(path)?.write_all(request.as_bytes())
    });
}

/// A command that must never be carried out: its value is no client's.
fn planted(n: usize) -> String {
    let key = honest::key(n % honest::CLIENTS, n % honest::KEYS);
    format!("set {key} 0 0 7\r\nplanted\r\n")
}

fn refused_lines(arena: &Arena) {
    again(arena, 20, |turn| {
        let planted = planted(turn);
        let (key, len) = ("k".repeat(251), planted.len());
        let line = match turn % 7 {
            0 => format!("set {key} 0 0 {len}"),
            1 => format!("set {key} 0 0 {len} noreply"),
            2 => format!("set k x 0 {len}"),
            3 => format!("set k 0 x {len}"),
            4 => format!("cas k 0 0 {len} "),
            5 => format!("set k 0 0 {len} surplus words"),
            _ => format!("set k 0 0 -{len}"),
        };
        throw(&arena.memcached, format!("{line}\r\n{planted}\r\n").as_bytes())
    });
}

fn wrong_protocol(arena: &Arena) {
    again(arena, 20, |turn| {
        let planted = planted(turn);
        let line = match turn % 3 {
            0 => "GET / HTTP/1.0",
            1 => "POST / HTTP/1.1",
            _ => "PUT /v1/objects/k",
        };
        let head = format!("{line}\r\nHost: x\r\nContent-Length: {}\r\n\r\n", planted.len());
        throw(&arena.memcached, (head + &planted).as_bytes())
    });
}

/// Requests that two readers would end at two places, with a further one between them.
fn framing(arena: &Arena) {
    again(arena, 20, |turn| {
        let key = target(&honest::key(turn % honest::CLIENTS, turn % honest::KEYS));
        let planted = format!("PUT {key} HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nplanted");
        let len = planted.len();
        let fields = match turn % 9 {
            0 => format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            1 => "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            2 => "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            3 => format!("Content-Length: 0\r\nContent-Length: {len}\r\n\r\n"),
            4 => format!("Content-Length: +{len}\r\n\r\n"),
            5 => "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n".to_owned(),
            6 => "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
            7 => "Host: y\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => "X: y\n\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        let (target, version) = match turn % 3 {
            0 => (key.clone() + "#1", "HTTP/1.1"),
            1 => (key.clone(), "HTTP/1.0"),
            _ => ("/v1/objects/framing".to_owned(), "HTTP/1.1"),
        };
        // What precedes the planted request ends the connection, or is refused before it.
        let head = format!("PUT {target} {version}\r\nHost: x\r\n{fields}{planted}");
        throw(&arena.http, head.as_bytes())
    });
}

fn open_and_drop(arena: &Arena) {
    again(arena, 2, |turn| {
        let path = if turn % 2 == 0 { &arena.memcached } else { &arena.http };
        UnixStream::connect(path).map(drop)
    });
}

fn tiny_values(arena: &Arena) {
    let mut stream = None;
    again(arena, 5, |turn| {
        let client = match &mut stream {
            Some(client) => client,
            None => {
                let connection = open_impatient(&arena.memcached)?;
                connection.set_read_timeout(Some(Duration::from_secs(10)))?;
                stream.insert(Client::over(connection))
            }
        };
        let keys = turn * 1000..(turn + 1) * 1000;
        let sets = keys.map(|n| format!("set tiny-{n} 0 0 1 noreply\r\nx\r\n"));
        let answered = client
            .try_send(sets.collect::<String>() + "mn\r\nversion\r\n")
            .and_then(|()| client.try_line());
        if !answered.is_ok_and(|line| !line.starts_with("SERVER_ERROR")) {
            stream = None;
        }
        Ok(())
    });
}

/// Asks for many large values at once, and reads 64 KiB every 50 ms.
fn read_slowly(arena: &Arena) {
    again(arena, 20, |turn| {
        let mut stream = open_impatient(&arena.memcached)?;
        stream.write_all(format!("get {}\r\n", big_key(turn)).repeat(50).as_bytes())?;
        let mut scratch = vec![0; 64 << 10];
        while !arena.is_closed() && stream.read(&mut scratch)? > 0 {
            pause(50);
        }
        Ok(())
    });
}

fn unread_metrics(arena: &Arena) {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", arena.admin);
    let open = |_| {
        let mut stream = TcpStream::connect(&arena.admin)?;
        stream.set_nonblocking(true)?;
        stream.write_all(request.repeat(3).as_bytes())?;
        Ok(stream)
    };
    // An empty line before a request is none.
    hold(arena, 40, TURN, open, |mut stream| {
        let refused = stream.write_all(b"\r\n").err();
        refused.is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock)
    });
}

/// Uploads of 20 MiB that stop in the middle.
fn stopped_uploads(arena: &Arena) {
    let len = 20 * MIB;
    again(arena, 100, |turn| {
        let key = format!("stopped-{}", turn % 5);
        let target = target(&key);
        let put = format!("PUT {target} HTTP/1.1\r\nHost: x\r\n");
        let (path, head) = match turn % 3 {
            0 => (&arena.memcached, format!("set {key} 0 0 {len}\r\n")),
            1 => (&arena.http, format!("{put}Content-Length: {len}\r\n\r\n")),
            _ => {
                let chunked = "Transfer-Encoding: chunked\r\n\r\n";
                (&arena.http, format!("{put}{chunked}{len:x}\r\n"))
            }
        };
        let mut stream = open_impatient(path)?;
        stream.write_all(head.as_bytes())?;
        for _ in 0..10 {
            stream.write_all(&arena.noise[..MIB])?;
        }
        for _ in 0..50 {
            if arena.is_closed() {
                break;
            }
            pause(100);
        }
        Ok(())
    });
}

/// Purges of keys of anyone.
fn purges(arena: &Arena) {
    let mut random = fastrand::Rng::with_seed(7);
    again(arena, 10, |turn| {
        let key = match random.usize(..8) {
            0 => honest::key(random.usize(..honest::CLIENTS), random.usize(..honest::KEYS)),
            1 => big_key(random.usize(..)),
            2 => "changed-large".to_owned(),
            _ => format!("tiny-{}", random.usize(..1_000_000)),
        };
        if turn % 2 == 0 {
            return throw(&arena.memcached, format!("delete {key}\r\n").as_bytes());
        }
        let mut connection = Connection(open_impatient(&arena.http)?);
        connection.try_ask("PURGE", &target(&key), "", b"").map(drop)
    });
}
