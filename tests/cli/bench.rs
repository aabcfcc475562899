//! Goal: `rawcached bench load` counts, verifies and times what really happens, and `bench device`
//! measures without harm. Method: the built command over real sockets, on the real server and on
//! small ones that misbehave on purpose; and on image files.

mod fake;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::support::binary::{rawcached, stderr};
use crate::support::daemon::Daemon;
use crate::support::server::TestServer;
use fake::{Fake, Fault};
use rawcached::device::probe;
use serde_json::Value;

/// Runs `bench load` on a memcached socket.
fn load(socket: &Path, arguments: &str) -> Output {
    let mut command = rawcached();
    command.args(["bench", "load", "--memcached"]).arg(socket);
    command.args(arguments.split_whitespace()).output().unwrap()
}

/// The parsed report of a run that went well.
fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A figure of the first server in a section.
fn figure(report: &Value, section: usize, name: &str) -> f64 {
    let found = &report["sections"][section]["servers"][0]["median"][name];
    found.as_f64().unwrap_or_else(|| panic!("{name} in {report:#}"))
}

#[test]
fn every_value_comes_back_from_the_real_server() {
    let server = TestServer::start();
    let arguments = "--keys 300 --fill --reads 0.7 --operations 5000 --json";
    for more in ["", "--depth 8", "--threads 3 --connections 7 --depth 2 --zipf 0.9"] {
        let report = report(&load(&server.path, &format!("{arguments} {more}")));
        assert_eq!(figure(&report, 0, "operations"), 300.0);
        assert_eq!(figure(&report, 1, "operations"), 5000.0);
        assert_eq!(figure(&report, 1, "hit_ratio"), 1.0);
        assert!(figure(&report, 1, "get_p50_us") <= figure(&report, 1, "get_max_us"));
    }
    let counts = server.snapshot().counts;
    assert_eq!(counts.cmd_get + counts.cmd_set, 3 * 5300);
}

#[test]
fn long_values_and_empty_ones_come_back_too() {
    let server = TestServer::start();
    for size in ["0", "7", "8..9", "1MiB", "lognormal:median=8KiB,sigma=2,min=1,max=2MiB"] {
        let arguments = "--keys 20 --fill --reads 0.5 --operations 200 --depth 3 --json --prefix";
        let report = report(&load(&server.path, &format!("{arguments} {size} --size {size}")));
        assert_eq!(figure(&report, 1, "hit_ratio"), 1.0, "{size}");
    }
}

#[test]
fn what_is_missing_is_stored_if_asked_for() {
    let server = TestServer::start();
    let arguments = "--keys 50 --operations 1000 --json";
    let empty = report(&load(&server.path, arguments));
    assert_eq!(figure(&empty, 0, "hit_ratio"), 0.0);
    let filling = report(&load(&server.path, &format!("{arguments} --fill-on-miss -c 1")));
    assert_eq!(figure(&filling, 0, "hit_ratio"), 0.95, "50 of 1000 are first");
    let filled = report(&load(&server.path, arguments));
    assert_eq!(figure(&filled, 0, "hit_ratio"), 1.0);
}

#[test]
fn http_processor_time_and_written_bytes_are_measured_on_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let (image, http) = (directory.path().join("image"), directory.path().join("http.sock"));
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    crate::support::binary::format(&image);
    let mut daemon = Daemon::new(&image, &format!("http = [\"unix:{}\"]", http.display()));
    daemon.restart();
    let mut command = rawcached();
    command.args(["bench", "load", "--http", &format!("unix:{}", http.display())]);
    command.args(["--metrics", daemon.admin(), "--keys", "200", "--size", "20KiB", "--fill"]);
    command.args(["--reads", "0.5", "--operations", "2000", "--ttl", "1h", "--json"]);
    let report = report(&command.output().unwrap());
    assert_eq!(figure(&report, 1, "hit_ratio"), 1.0);
    assert!(figure(&report, 1, "server_cpu_us_per_operation") > 0.0);
    for section in [0, 1] {
        let written = figure(&report, section, "write_amplification");
        assert!((1.0..1.5).contains(&written), "{written}");
    }
}

#[test]
fn two_servers_stand_side_by_side() {
    let (one, other) = (TestServer::start(), TestServer::start());
    let against = format!("--against {}", other.path.display());
    let arguments = format!("--keys 50 --fill --operations 500 --rounds 2 {against}");
    let report = report(&load(&one.path, &format!("{arguments} --json")));
    let section = &report["sections"][1];
    for server in 0..2 {
        assert_eq!(section["servers"][server]["rounds"].as_array().unwrap().len(), 2);
    }
    assert!(section["ratio"]["operations_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(one.snapshot().counts.cmd_get, 1000);
    assert_eq!(other.snapshot().counts.cmd_get, 1000);
    let text = String::from_utf8(load(&one.path, &arguments).stdout).unwrap();
    assert!(text.contains("ratio") && text.contains("operations/s"), "{text}");
}

#[test]
fn a_trace_says_what_is_asked_for() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.csv");
    let run = |text: &str| {
        fs::write(&path, text).unwrap();
        let trace = path.display();
        load(&server.path, &format!("--trace {trace} --fill-on-miss -c 1 --json"))
    };
    let report = report(&run("time,size,lbn\n1,512,9\n2,70000,8\n3,512,9\n4,512,9\n"));
    assert_eq!(figure(&report, 0, "hit_ratio"), 0.5);
    let output = run("time,size,lbn\n1,512,9\n2,many,8\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("line 3"), "{}", stderr(&output));
}

#[test]
fn one_wrong_byte_among_thousands_is_noticed() {
    for size in ["100", "100KiB"] {
        let fake = Fake::start(Fault::FlipByte { answer: 700 });
        let arguments = format!("--keys 50 --fill --operations 1000 --size {size}");
        let output = load(fake.socket(), &arguments);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("wrong bytes in the value of key-"),
            "{}",
            stderr(&output)
        );
        let fake = Fake::start(Fault::FlipByte { answer: 700 });
        let trusting = load(fake.socket(), &format!("{arguments} --verify false"));
        assert!(trusting.status.success(), "{}", stderr(&trusting));
    }
}

#[test]
fn a_stall_delays_every_request_that_is_due_in_it() {
    let stall = Duration::from_millis(200);
    let run = |more: &str| {
        let fake = Fake::start(Fault::Stall { answer: 300, time: stall });
        let arguments = format!("--keys 50 --fill --size 100 --operations 1000 -c 4 --json {more}");
        report(&load(fake.socket(), &arguments))
    };
    // A server that stops for 200 ms lets four requests of a closed loop wait, and of an open loop
    // all that are due meanwhile: 400 of 1000 at 2000 a second, 80 of 1000 at 400 a second.
    let closed = run("");
    assert!(figure(&closed, 1, "get_max_us") >= 190e3);
    assert!(figure(&closed, 1, "get_p99_us") < 150e3);
    let fast = run("--rate 2000");
    assert!(figure(&fast, 1, "get_p999_us") >= 190e3);
    assert!(figure(&fast, 1, "get_p90_us") >= 140e3);
    let slow = run("--rate 400");
    assert!(figure(&slow, 1, "get_p999_us") >= 190e3);
    assert!(figure(&slow, 1, "get_p99_us") >= 150e3);
    assert!(figure(&slow, 1, "get_p90_us") < 120e3);
}

#[test]
fn mistakes_are_told() {
    for (arguments, complaint) in [
        ("--memcached unix:/nowhere/x.sock", "cannot connect to unix:/nowhere/x.sock"),
        ("--keys 5", "--memcached"),
        ("--memcached nowhere", "no address"),
        ("--memcached unix:x --size 2..1", "limits"),
        ("--memcached unix:x --reads 2", "from 0 to 1"),
        ("--memcached unix:x --against-pid 1", "--against"),
        ("--memcached unix:x --trace a --zipf 1", "--zipf"),
    ] {
        let arguments = format!("bench load {arguments}");
        let output = rawcached().args(arguments.split_whitespace()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(stderr(&output).contains(complaint), "{arguments}: {}", stderr(&output));
    }
}

/// An image file that begins with `start`, followed by bytes of 1.
fn image(directory: &tempfile::TempDir, start: &[u8]) -> PathBuf {
    let path = directory.path().join("image");
    let mut bytes = vec![1; 32 << 20];
    bytes[..start.len()].copy_from_slice(start);
    fs::write(&path, bytes).unwrap();
    path
}

fn device(path: &Path, arguments: &str) -> Output {
    let mut command = rawcached();
    command.args(["bench", "device"]).arg(path);
    command.args(arguments.split_whitespace()).output().unwrap()
}

#[test]
fn a_device_is_measured_without_being_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(&directory, b"");
    crate::support::binary::format(&path);
    let before = fs::read(&path).unwrap();
    let report = report(&device(&path, "--quick --seconds 2ms --json"));
    let rows = report["rows"].as_array().unwrap();
    let count = |name: &str, value: &str| rows.iter().filter(|row| row[name] == value).count();
    for group in ["sizes", "depths", "range engine off", "range engine on", "alignments"] {
        assert!(count("group", group) >= 2, "{group} in {report:#}");
    }
    assert_eq!(count("operation", "random write"), 0);
    assert!(count("engine", "raw") >= 8 && count("engine", "threads") > count("engine", "raw"));
    // Where the kernel refuses io_uring a note says so.
    let is_told = report["notes"].to_string().contains("no rows with io_uring");
    assert!(is_told || count("engine", "io_uring") == count("engine", "threads"), "{report:#}");
    for row in rows {
        assert!(row["operations"].as_u64().unwrap() > 0, "{row:#}");
        assert!(row["rate_to_raw"].as_f64().unwrap() > 0.0, "{row:#}");
        let is_raw = row["engine"] == "raw";
        assert!(!is_raw || row["rate_to_raw"] == 1.0, "{row:#}");
    }
    assert!(fs::read(&path).unwrap() == before, "reading changed the device");
    let text = device(&path, "--quick --seconds 1ms").stdout;
    assert!(String::from_utf8(text).unwrap().contains("random read"));
}

#[test]
fn every_size_depth_and_alignment_is_measured_with_every_engine() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(&directory, b"");
    let report = report(&device(&path, "--seconds 1ms --json"));
    let (rows, notes) = (report["rows"].as_array().unwrap(), report["notes"].to_string());
    // The values of the rows of a group under a name, in order.
    let found = |group: &str, engine: &str, name: &str| -> Vec<u64> {
        let of = |row: &&Value| row["group"] == group && row["engine"] == engine;
        let values = rows.iter().filter(of).map(|row| row[name].as_u64().unwrap());
        values.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let least = u64::from(probe(&path).unwrap().alignment.unwrap_or(512));
    let mut sizes: Vec<u64> = [512, 4 << 10, 16 << 10, 64 << 10, 256 << 10].into();
    sizes.extend([1 << 20, 2 << 20, 4 << 20]);
    sizes.retain(|size| size % least == 0);
    let depths: Vec<u64> = (0..=7).map(|power| 1 << power).collect();
    let alignments: Vec<u64> = (9..=16).map(|power| 1 << power).filter(|at| *at >= least).collect();
    let engines = if notes.contains("no rows with io_uring") { 1 } else { 2 };
    for engine in &["threads", "io_uring"][..engines] {
        assert_eq!(found("alignments", engine, "alignment_bytes"), alignments, "{engine}");
        for engine in ["raw", engine] {
            assert_eq!(found("sizes", engine, "block_bytes"), sizes, "{engine}");
            assert_eq!(found("depths", engine, "depth"), depths, "{engine}");
        }
        for group in ["sizes", "range engine off", "range engine on"] {
            for is_direct in [true, false] {
                let of = |row: &&Value| row["group"] == group && row["engine"] == *engine;
                let ways = rows.iter().filter(of).filter(|row| row["direct"] == is_direct).count();
                let blocks = found(group, engine, "block_bytes").len();
                let is_told = notes.contains("no direct I/O");
                assert!(is_told || ways == blocks, "{group} {engine}: {ways}, direct: {is_direct}");
            }
        }
    }
}

#[test]
fn writes_are_refused_where_something_could_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(&directory, b"XFSB");
    let refuses = |arguments: &str, complaint: &str| {
        let before = fs::read(&path).unwrap();
        let output = device(&path, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(stderr(&output).contains(complaint), "{arguments}: {}", stderr(&output));
        assert!(fs::read(&path).unwrap() == before, "{arguments} changed the device");
    };
    let quick = "--quick --seconds 2ms --write";
    refuses(&format!("{quick} --yes"), "holds XFS");
    refuses(&format!("{quick} --force"), "add --yes");
    crate::support::binary::format(&path);
    refuses(&format!("{quick} --yes"), "holds the rawcached store");
    image(&directory, b"");
    refuses(quick, "add --yes");
    let daemon_image = path.clone();
    crate::support::binary::format(&daemon_image);
    let daemon = Daemon::start(&daemon_image);
    refuses_in_use(&device(&path, &format!("{quick} --yes --force")));
    refuses_in_use(&device(&path, "--quick --seconds 2ms"));
    drop(daemon);
}

fn refuses_in_use(output: &Output) {
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(output).contains("in use"), "{}", stderr(output));
}

#[test]
fn writes_are_measured_where_they_are_allowed() {
    let directory = tempfile::tempdir().unwrap();
    for start in [b"".as_slice(), b"XFSB"] {
        let path = image(&directory, start);
        let before = fs::read(&path).unwrap();
        let force = if start.is_empty() { "" } else { "--force" };
        let arguments = format!("--quick --seconds 5ms --write --yes {force} --json");
        let report = report(&device(&path, &arguments));
        let rows = report["rows"].as_array().unwrap();
        for operation in ["random write", "sequential write"] {
            assert!(rows.iter().any(|row| row["operation"] == operation), "{report:#}");
        }
        assert!(fs::read(&path).unwrap() != before, "nothing was written");
    }
}
