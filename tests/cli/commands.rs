//! Goal: the commands beside `serve` say what is wrong and do what they say. Method: run the built
//! binary; where a daemon is needed, script its side of the protocol.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rawcached::cache::{Cache, CacheOptions, Condition, Purge, StoreOptions, UpdateOptions};

use crate::{directory, rawcached, stderr, stdout};

#[test]
fn help_lists_every_command() {
    let output = rawcached(directory().path()).arg("--help").output().unwrap();
    let help = stdout(&output);
    for command in
        ["serve", "format", "probe", "inspect", "ls", "check", "stats", "get", "put", "purge"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in\n{help}");
    }
    let output = rawcached(directory().path()).args(["serve", "--help"]).output().unwrap();
    assert!(stdout(&output).contains("--server-max-object-size"));
}

#[test]
fn a_missing_device_names_the_command_to_run() {
    let directory = directory();
    let output =
        rawcached(directory.path()).args(["serve", "--device-path", "none.img"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("rawcached format none.img --size"), "{}", stderr(&output));
}

/// Opening some of these would wait for another process.
#[test]
fn what_is_no_device_is_refused_at_once_by_every_command() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    nix::unistd::mkfifo(at("fifo").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    let others = ["fifo", "folder", "link", "socket"].map(at);
    for path in others.iter().map(String::as_str).chain(["/dev/null", "/dev/zero"]) {
        for (command, code) in [
            (["probe", path, "--json"].as_slice(), 2),
            (&["format", path, "--yes"], 2),
            (&["inspect", path], 2),
            (&["check", path], 2),
            (&["ls", path], 2),
            (&["bench", "device", path], 2),
            (&["serve", "--server-admin", "", "--device-path", path], 1),
        ] {
            let output = rawcached(directory.path()).args(command).output().unwrap();
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {message}");
            let reason = format!("{path} is neither a block device nor a regular file");
            assert!(message.contains(&reason), "{command:?}: {message}");
        }
    }
}

/// The working directory may be anybody's: what is in it is not trusted because it is there.
#[test]
fn a_socket_that_others_have_put_here_is_not_used() {
    let directory = directory();
    let data = directory.path().join("rawcached-data");
    std::fs::create_dir(&data).unwrap();
    let _http = UnixListener::bind(data.join("http.sock")).unwrap();
    let _memcached = UnixListener::bind(data.join("memcached.sock")).unwrap();
    let refused = |arguments: &[&str]| {
        let output = rawcached(directory.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let all: [&[&str]; 5] = [
        &["stats"],
        &["get", "k"],
        &["put", "k"],
        &["purge", "k"],
        &["serve", "--server-admin", ""],
    ];
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
    for arguments in &all[..4] {
        let message = refused(arguments);
        assert!(message.contains("others can write to rawcached-data (mode 0777)"), "{message}");
        assert!(message.contains("--socket"), "{message}");
    }
    let output = rawcached(directory.path()).args(all[4]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("others can write to rawcached-data"), "{}", stderr(&output));
    assert!(!data.join("cache.img").exists());
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let other = Some(nix::unistd::Uid::from_raw(54321));
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    nix::unistd::chown(&data.join("http.sock"), other, None).unwrap();
    let expected = "rawcached-data/http.sock belongs to another user (54321)";
    assert!(refused(all[1]).contains(expected), "{}", refused(all[1]));
    nix::unistd::chown(&data, other, None).unwrap();
    assert!(refused(all[0]).contains("rawcached-data belongs to another user (54321)"));
}

#[test]
fn format_does_not_overwrite_a_file_that_is_there() {
    let directory = directory();
    std::fs::write(directory.path().join("x.img"), "mine").unwrap();
    let output = rawcached(directory.path())
        .args(["format", "x.img", "--size", "64MiB", "--yes"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is there already"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(directory.path().join("x.img")).unwrap(), "mine");
}

#[test]
fn a_new_image_is_formatted_and_told_about() {
    let directory = directory();
    let run = |arguments: &[&str]| rawcached(directory.path()).args(arguments).output().unwrap();
    let output = run(&["format", "x.img", "--size", "64MiB", "--force", "--alignment", "8192"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("alignment    8KiB (8192 bytes)"), "{}", stdout(&output));
    let output = run(&["inspect", "x.img", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["alignment_bytes"], 8192);
    assert_eq!(report["superblocks"], serde_json::json!(["good", "good"]));
    let output = run(&["probe", "x.img", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["size"], &report["kind"]), (&(64 << 20).into(), &"file".into()));

    let output = run(&["format", "x.img"]);
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("add --yes") && message.contains("holds the rawcached store"),
        "{message}"
    );
    assert!(run(&["format", "x.img", "--yes"]).status.success());
}

/// Output to a terminal or a log spreads farther than bytes on the disk.
#[test]
fn the_secret_of_a_cache_is_not_shown() {
    let directory = directory();
    let run = |arguments: &[&str]| {
        let output = rawcached(directory.path()).args(arguments).output().unwrap();
        stdout(&output) + &stderr(&output)
    };
    let mut shown = run(&["format", "x.img", "--size", "64MiB", "--force"]);
    let superblock = std::fs::read(directory.path().join("x.img")).unwrap();
    let secret: [u8; 16] = superblock[72..88].try_into().unwrap();
    assert_ne!(secret, [0; 16]);
    for arguments in [
        &["inspect", "x.img", "-v"][..],
        &["inspect", "x.img", "--json"],
        &["inspect", "x.img", "--region", "0"],
        &["inspect", "x.img", "--key", "k", "--json"],
        &["check", "x.img"],
        &["ls", "x.img"],
        &["probe", "x.img", "--json"],
        &["format", "x.img"],
        &["serve", "-v", "--check-config", "--device-path", "x.img"],
    ] {
        shown += &run(arguments);
    }
    assert!(shown.contains("x.img"));
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let halves = [&secret[..8], &secret[8..]].map(|half| half.try_into().unwrap());
    let numbers = halves.map(|half| u64::from_le_bytes(half).to_string());
    let list = format!("{:?}", &secret[..4]);
    for form in [&hex[..16], &hex[16..], &numbers[0], &numbers[1], list.trim_matches(['[', ']'])] {
        assert!(!shown.to_lowercase().contains(form), "{form} in {shown}");
    }
}

#[test]
fn ls_lists_the_entries_with_a_tag() {
    let directory = directory();
    let path = directory.path().join("x.img");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let cache = Cache::create(&path, Some(64 << 20), CacheOptions::default()).await.unwrap();
        cache.ready().await;
        for (key, tags) in
            [("a", &["red", "new"][..]), ("b", &["new"]), ("c", &[]), ("d", &["red"])]
        {
            let mut options = StoreOptions::default();
            options.ttl = Some(Duration::from_secs(1000));
            options.tags = tags.iter().map(|tag| (*tag).into()).collect();
            cache.put(key.as_bytes(), b"body", Condition::Always, &options).await.unwrap();
        }
        cache.purge_tag(b"red", Purge::Soft).await.unwrap();
        let mut options = UpdateOptions::default();
        options.tags = Some(vec!["red".into()]);
        cache.update(b"b", Condition::Always, &options).await.unwrap();
        cache.shutdown().await.unwrap();
    });
    let keys = |tag: Option<&str>| -> Vec<String> {
        let tag = tag.map(|tag| format!("--tag={tag}"));
        let mut command = rawcached(directory.path());
        let output = command.args(["ls", "x.img", "--json"]).args(tag).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let key = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            entry["key"].as_str().unwrap().to_owned()
        };
        let mut keys: Vec<String> = stdout(&output).lines().map(key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(None), ["a", "b", "c", "d"]);
    // One that a soft purge covers is there; "b" has another tag by now.
    assert_eq!(keys(Some("red")), ["a", "b", "d"]);
    assert_eq!(keys(Some("new")), ["a"]);
    assert!(keys(Some("blue")).is_empty());
}

#[test]
fn a_foreign_file_system_is_erased_by_force_only() {
    let directory = directory();
    let path = directory.path().join("x.img");
    let mut image = vec![0; 64 << 20];
    // Magic number and a plausible head of an ext4 superblock.
    image[1024..1028].copy_from_slice(&16384_u32.to_le_bytes());
    image[1028..1032].copy_from_slice(&16384_u32.to_le_bytes());
    image[1024 + 56..1024 + 58].copy_from_slice(&0xef53_u16.to_le_bytes());
    std::fs::write(&path, image).unwrap();
    let run = |arguments: &[&str]| rawcached(directory.path()).args(arguments).output().unwrap();
    let output = run(&["format", "x.img", "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("add --force"), "{}", stderr(&output));
    let output = run(&["serve", "--device-path", "x.img", "--server-admin", ""]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("rawcached format"), "{}", stderr(&output));
    assert!(run(&["format", "x.img", "--yes", "--force"]).status.success());
}

#[test]
fn keys_that_cannot_be_sent_are_refused_before_connecting() {
    for key in ["", &"x".repeat(4097)] {
        let output = rawcached(directory().path()).args(["get", key]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("it must have 1 to 4096"), "{}", stderr(&output));
    }
}

#[test]
fn without_a_daemon_the_client_says_where_it_looked() {
    let directory = directory();
    let output =
        rawcached(directory.path()).args(["get", "k", "--socket", "none.sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot connect to unix:none.sock"), "{}", stderr(&output));
}

/// A server that expects `request` on one connection and answers `answer`.
fn script(directory: &Path, request: &'static [u8], answer: &'static [u8]) -> JoinHandle<()> {
    let listener = UnixListener::bind(directory.join("s.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; request.len()];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, request);
        stream.write_all(answer).unwrap();
    })
}

fn client(
    arguments: &[&str],
    input: &[u8],
    request: &'static [u8],
    answer: &'static [u8],
) -> Output {
    let directory = directory();
    let server = script(directory.path(), request, answer);
    let mut child = rawcached(directory.path())
        .args(arguments)
        .args(["--socket", "s.sock"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    server.join().unwrap();
    output
}

const GET: &[u8] = b"GET /v1/objects/a%20b HTTP/1.1\r\nhost: rawcached\r\n\r\n";
const MISS: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[test]
fn get_writes_the_exact_value_and_tells_a_miss() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na\r\nbc";
    let output = client(&["get", "a b"], b"", GET, answer);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"a\r\nbc"[..]));
    assert_eq!(stderr(&output), "", "no bar without a terminal");
    let output = client(&["get", "a b"], b"", GET, MISS);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    assert_eq!(stderr(&output), "rawcached: a b is not in the cache\n");
}

#[test]
fn a_transfer_shows_its_progress_on_a_terminal() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    // Not for the children of other tests, which would keep it open.
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let directory = directory();
    let server =
        script(directory.path(), GET, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na\r\nbc");
    let mut get = rawcached(directory.path());
    get.args(["get", "a b", "--socket", "s.sock"]).env("TERM", "xterm");
    get.stdout(Stdio::null()).stderr(terminal.slave);
    assert!(get.status().unwrap().success());
    // With its copy in `get` the other end closes, and reading ends with an error.
    drop(get);
    let mut shown = Vec::new();
    assert!(File::from(terminal.master).read_to_end(&mut shown).is_err());
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("5 B/5 B ["), "{shown:?}");
    assert!(shown.ends_with("\u{1b}[2K"), "the bar is gone at the end: {shown:?}");
    server.join().unwrap();
}

#[test]
fn get_asks_for_ranges_and_with_headers() {
    let request = b"GET /v1/objects/k HTTP/1.1\r\ncache-control: max-stale\r\nrange: bytes=-2\r\n\
                    host: rawcached\r\n\r\n";
    let answer = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\nbc";
    let arguments = ["get", "k", "--range", "-2", "--header", "Cache-Control: max-stale"];
    let output = client(&arguments, b"", request, answer);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"bc"[..]));
}

#[test]
fn a_value_that_is_cut_off_is_an_error_not_a_miss() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab";
    let output = client(&["get", "a b"], b"", GET, answer);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("after 2 bytes"), "{}", stderr(&output));
    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nbusy\n";
    let output = client(&["get", "a b"], b"", GET, answer);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("503 Service Unavailable: busy"), "{}", stderr(&output));
}

#[test]
fn put_sends_standard_input_with_lifetime_and_headers() {
    let request =
        b"PUT /v1/objects/k HTTP/1.1\r\ncontent-type: text/css\r\nx-rawcached-ttl: 600\r\n\
                    host: rawcached\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\0b\r\n0\r\n\r\n";
    let created = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
    let arguments = ["put", "k", "--ttl", "10m", "--header", "Content-Type: text/css"];
    let output = client(&arguments, b"a\0b", request, created);
    assert!(output.status.success(), "{}", stderr(&output));
    // The whole request is read before the answer: what closes earlier may break the client's write.
    let request =
        b"PUT /v1/objects/k HTTP/1.1\r\nhost: rawcached\r\ntransfer-encoding: chunked\r\n\r\n\
                    0\r\n\r\n";
    let answer = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 4\r\n\r\nlong";
    let output = client(&["put", "k"], b"", request, answer);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("413 Payload Too Large: long"), "{}", stderr(&output));
}

#[test]
fn purge_selects_by_url_tag_prefix_origin_and_group() {
    let done = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n";
    for (arguments, body) in [
        (
            &["--url", "https://a.example/b", "http://c/"][..],
            r#"{"type":"uri","selectors":["https://a.example/b","http://c/"]}"#,
        ),
        (
            &["--url", "http://a", "--url", "http://b"],
            r#"{"type":"uri","selectors":["http://a","http://b"]}"#,
        ),
        (&["--tag", "x y"], r#"{"type":"tag","selectors":["x y"]}"#),
        (
            &["--prefix", "http://a/b", "--soft"],
            r#"{"type":"uri-prefix","selectors":["http://a/b"],"purge":false}"#,
        ),
        (&["--origin", "http://a:81"], r#"{"type":"origin","selectors":["http://a:81"]}"#),
        (
            &["--group", "g", "h", "--of", "http://a"],
            r#"{"type":"group","selectors":["http://a"],"groups":["g","h"]}"#,
        ),
        (&["--all"], r#"{"type":"all"}"#),
        (&["--all", "--soft"], r#"{"type":"all","purge":false}"#),
    ] {
        let request = format!(
            "POST /v1/purge HTTP/1.1\r\ncontent-type: application/json\r\nhost: rawcached\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let arguments = [&["purge"], arguments].concat();
        let output = client(&arguments, b"", request.into_bytes().leak(), done);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert_eq!((stdout(&output), stderr(&output)), (String::new(), String::new()));
    }
}

#[test]
fn a_purge_that_is_not_done_is_an_error() {
    let request =
        b"POST /v1/purge HTTP/1.1\r\ncontent-type: application/json\r\nhost: rawcached\r\n\
                    content-length: 14\r\n\r\n{\"type\":\"all\"}";
    for (answer, expected) in [
        (&b"HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno\n"[..], "403 Forbidden: no"),
        (MISS, "not purged: nothing is at the socket's /v1/purge"),
    ] {
        let output = client(&["purge", "--all"], b"", request, answer);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    for (arguments, expected) in [
        (&[][..], "required"),
        (&["k", "--tag", "t"], "cannot be used with"),
        (&["--all", "--tag", "t"], "cannot be used with"),
        (&["k", "--soft"], "cannot be used with"),
        (&["--group", "g"], "--of <ORIGIN>"),
        (&["--of", "http://a"], "required"),
        (&["--url", "/a"], "write it with scheme and host"),
        (&["--prefix", "a.example/"], "write it with scheme and host"),
        (&["--origin", "http://a/b"], "write scheme and host"),
    ] {
        let output = rawcached(directory().path()).arg("purge").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn of_several_keys_all_are_purged_and_the_missing_ones_are_named() {
    let directory = directory();
    let listener = UnixListener::bind(directory.path().join("s.sock")).unwrap();
    let server = std::thread::spawn(move || {
        let answers: [(&str, &[u8]); 3] = [
            ("a", b"HTTP/1.1 204 No Content\r\n\r\n"),
            ("b", MISS),
            ("c", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ];
        for (key, answer) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request = format!("DELETE /v1/objects/{key} HTTP/1.1\r\nhost: rawcached\r\n\r\n");
            let mut received = vec![0; request.len()];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(received, request.as_bytes());
            stream.write_all(answer).unwrap();
        }
    });
    let arguments = ["purge", "a", "b", "c", "--socket", "s.sock"];
    let output = rawcached(directory.path()).args(arguments).output().unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "rawcached: b is not in the cache\n");
}

#[test]
fn purge_and_stats_speak_their_protocols() {
    let request = b"DELETE /v1/objects/k HTTP/1.1\r\nhost: rawcached\r\n\r\n";
    let output = client(&["purge", "k"], b"", request, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(output.status.code(), Some(0));
    let output = client(&["purge", "k"], b"", request, MISS);
    assert_eq!(output.status.code(), Some(1));
    let answer = b"STAT pid 7\r\nSTAT version 1.2.3\r\nEND\r\n";
    let output = client(&["stats"], b"", b"stats\r\n", answer);
    assert_eq!(stdout(&output), "pid      7\nversion  1.2.3\n");
    let output = client(&["stats", "--json"], b"", b"stats\r\n", answer);
    assert_eq!(stdout(&output), "{\n  \"pid\": 7,\n  \"version\": \"1.2.3\"\n}\n");
}
