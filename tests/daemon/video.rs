//! Goal: many players in one large file that nobody has stored yet cost the origin each byte once and the daemon
//! little memory. Method: an origin that counts what it sends, 300 clients with random ranges of which every byte is
//! compared, the RAM tier off. `RAWCACHED_TEST_VIDEO_MIB` says how large the file is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::long_body::LongBody;
use crate::support::daemon::Daemon;

const MIB: u64 = 1 << 20;
/// Of the file if the environment names no other length; 512 in CI.
const FILE_MIB: u64 = 256;
const CLIENTS: u64 = 300;
/// Of the daemon, all of it.
const RESIDENT_MAX: u64 = 300 * MIB;
/// Bytes that are written and compared at a time.
const PIECE: usize = 64 << 10;

/// Bytes of bodies that the origin has handed to the kernel.
static SENT: AtomicU64 = AtomicU64::new(0);

fn origin(body: &Arc<LongBody>, len: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let body = body.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (body, stream) = (body.clone(), stream.unwrap());
            std::thread::spawn(move || drop(serve(stream, &body, len)));
        }
    });
    port
}

/// Bytes of the next piece if so many are left.
fn piece_len(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

/// Answers requests with a range, or for all, until the other side ends.
fn serve(stream: TcpStream, body: &LongBody, len: u64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let (mut range, mut lines) = (None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            lines += 1;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("range: bytes=") {
                let (first, last) = text.split_once('-').unwrap();
                range = Some(first.parse().unwrap()..(last.parse::<u64>().unwrap() + 1).min(len));
            }
        }
        assert!(lines > 1, "a request");
        let head = match &range {
            Some(range) => format!(
                "206 Partial Content\r\nContent-Range: bytes {}-{}/{len}\r\n",
                range.start,
                range.end - 1
            ),
            None => "200 OK\r\nAccept-Ranges: bytes\r\n".to_owned(),
        };
        let range = range.unwrap_or(0..len);
        let length = range.end - range.start;
        let more = "Cache-Control: max-age=3600\r\nETag: \"v\"\r\n";
        write!(writer, "HTTP/1.1 {head}Content-Length: {length}\r\n{more}\r\n")?;
        let mut at = range.start;
        while at < range.end {
            let piece = body.at(at, piece_len(range.end - at));
            writer.write_all(piece)?;
            SENT.fetch_add(piece.len() as u64, Ordering::Relaxed);
            at += piece.len() as u64;
        }
    }
}

/// One range, compared as it comes.
fn watch(socket: &Path, body: &LongBody, (start, end, len): (u64, u64, u64)) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let last = end - 1;
    write!(stream, "GET /v HTTP/1.1\r\nHost: h\r\nRange: bytes={start}-{last}\r\n\r\n").unwrap();
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "cut within {head}");
    }
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert!(head.contains(&format!("content-range: bytes {start}-{last}/{len}\r\n")), "{head}");
    let (mut at, mut piece) = (start, vec![0; PIECE]);
    while at < end {
        let read = reader.read(&mut piece[..piece_len(end - at)]).unwrap();
        assert!(read > 0, "cut at {at} of {start} to {end}");
        assert!(piece[..read] == *body.at(at, read), "wrong bytes from {at} on");
        at += read as u64;
    }
}

#[test]
fn three_hundred_players_of_one_cold_video_cost_each_byte_once() {
    let mib = std::env::var("RAWCACHED_TEST_VIDEO_MIB").map(|mib| mib.parse().unwrap());
    let len = mib.unwrap_or(FILE_MIB) * MIB + 12_345;
    let body = Arc::new(LongBody::new());
    let port = origin(&body, len);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let mut daemon = Daemon::new(&directory.path().join("image"), "");
    daemon.configure_more(&format!(
        "size = \"{}MiB\"\n[ram]\nsize = \"0\"\n\
         [[proxy]]\nname = \"video\"\nlisten = [\"unix:{}\"]\nupstream = \"http://127.0.0.1:{port}\"\n",
        // An object may take half of it.
        len / MIB * 2 + 512,
        socket.display()
    ));
    daemon.restart();
    let peak = std::thread::scope(|scope| {
        let players = (0..CLIENTS).map(|n| {
            let (socket, body) = (&socket, &body);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(n);
                for _ in 0..4 {
                    let start = random.u64(0..len);
                    let end = len.min(start + random.u64(1..4 * MIB));
                    watch(socket, body, (start, end, len));
                }
            })
        });
        let players: Vec<_> = players.collect();
        let mut peak = 0;
        while !players.iter().all(ScopedJoinHandle::is_finished) {
            peak = peak.max(daemon.resident_bytes());
            std::thread::sleep(Duration::from_millis(50));
        }
        peak
    });
    let sent = SENT.load(Ordering::Relaxed);
    println!("{len} bytes: the origin sent {sent}, the daemon had {} MiB at most", peak / MIB);
    assert!(sent <= len + len / 20, "the origin sent {sent} of {len}");
    assert!(peak < RESIDENT_MAX, "{peak} bytes");
}
