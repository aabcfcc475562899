//! The commands of the memcached protocol over real Unix sockets. Goal: every command and
//! every error answers as memcached does (docs/memcached.md). Method: bytes in, bytes out; time is moved,
//! not waited for.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::memcached::Client;
use crate::support::server::{HttpServer, TestServer, options};
use rawcached::server::Options;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

#[test]
fn values_come_back_with_their_flags() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set a 4294967295 0 3\r\nabc\r\n", "STORED\r\n");
    client.ask("set empty 0 0 0\r\n\r\n", "STORED\r\n");
    client.ask(
        "get a nope empty a\r\n",
        "VALUE a 4294967295 3\r\nabc\r\nVALUE empty 0 0\r\n\r\nVALUE a 4294967295 3\r\nabc\r\nEND\r\n",
    );
}

#[test]
fn values_are_opaque_bytes() {
    let server = TestServer::start();
    let mut client = server.connect();
    let value: Vec<u8> = (0..=255).chain(*b"\r\nget a\r\n\n\n").collect();
    client.send(format!("set a 0 0 {}\r\n", value.len()));
    client.send(&value);
    client.ask("\r\n", "STORED\r\n");
    client.ask("get a\r\n", [b"VALUE a 0 267\r\n", value.as_slice(), b"\r\nEND\r\n"].concat());
}

#[test]
fn add_and_replace_look_at_what_is_there() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("replace a 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("add a 0 0 1\r\ny\r\n", "STORED\r\n");
    client.ask("add a 0 0 1\r\nz\r\n", "NOT_STORED\r\n");
    client.ask("get a\r\n", "VALUE a 0 1\r\ny\r\nEND\r\n");
    client.ask("replace a 0 0 1\r\nw\r\n", "STORED\r\n");
    client.ask("get a\r\n", "VALUE a 0 1\r\nw\r\nEND\r\n");
}

#[test]
fn append_and_prepend_keep_flags_and_lifetime() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("append a 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("set a 7 10 3\r\nabc\r\n", "STORED\r\n");
    server.clock.advance(Duration::from_secs(5));
    client.ask("append a 9 0 3\r\ndef\r\n", "STORED\r\n");
    client.ask("prepend a 9 0 1\r\n>\r\n", "STORED\r\n");
    client.ask("get a\r\n", "VALUE a 7 7\r\n>abcdef\r\nEND\r\n");
    server.clock.advance(Duration::from_secs(5));
    client.ask("get a\r\n", "END\r\n");
}

#[test]
fn cas_stores_only_over_the_version_it_names() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("cas a 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n");
    client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let version = |client: &mut Client| {
        client.send("gets a\r\n");
        let text = client.read_until("END\r\n");
        text.lines().next().unwrap().split(' ').nth(4).unwrap().to_owned()
    };
    let first = version(&mut client);
    client.ask(format!("cas a 0 0 1 {first}\r\ny\r\n"), "STORED\r\n");
    client.ask(format!("cas a 0 0 1 {first}\r\nz\r\n"), "EXISTS\r\n");
    assert_ne!(version(&mut client), first);
    client.ask("get a\r\n", "VALUE a 0 1\r\ny\r\nEND\r\n");
    client.ask("cas a 0 0 1 x\r\n", BAD_FORMAT);
}

#[test]
fn numbers_wrap_stop_at_zero_and_keep_their_length() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("incr n 1\r\ndecr n 1\r\n", "NOT_FOUND\r\nNOT_FOUND\r\n");
    client.ask("set n 5 10 2\r\n10\r\n", "STORED\r\n");
    client.ask("incr n 5\r\ndecr n 8\r\n", "15\r\n7\r\n");
    client.ask("get n\r\n", "VALUE n 5 2\r\n7 \r\nEND\r\n");
    client.ask("decr n 100\r\nincr n 18446744073709551615\r\n", "0\r\n18446744073709551615\r\n");
    client.ask("incr n 2\r\nget n\r\n", format!("1\r\nVALUE n 5 20\r\n{:<20}\r\nEND\r\n", 1));
    client.ask(
        "incr n x\r\nincr n -1\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n".repeat(2),
    );
    client.ask("incr n 1 noreply\r\nincr n 0\r\n", "2\r\n");
    for text in ["abc", "-1", "", "18446744073709551616"] {
        client.ask(format!("set t 0 0 {}\r\n{text}\r\n", text.len()), "STORED\r\n");
        client.ask(
            "incr t 1\r\n",
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        );
    }
    server.clock.advance(Duration::from_secs(10));
    client.ask("get n\r\n", "END\r\n");
}

#[test]
fn concurrent_changes_of_one_number_lose_nothing() {
    let server = TestServer::start();
    server.connect().ask("set n 0 0 1\r\n0\r\n", "STORED\r\n");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.connect();
                client.send("incr n 1 noreply\r\n".repeat(500));
                client.expect_alive();
            });
        }
    });
    server.connect().ask("get n\r\n", "VALUE n 0 4\r\n4000\r\nEND\r\n");
}

#[test]
fn delete_takes_the_value_and_an_old_hold_time() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("delete a\r\n", "NOT_FOUND\r\n");
    client.ask("set a 0 0 1\r\nx\r\ndelete a 0\r\nget a\r\n", "STORED\r\nDELETED\r\nEND\r\n");
    let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    client.ask("delete a 5\r\n", usage);
    client.ask("delete a 0 noreply\r\ndelete a noreply\r\ndelete a\r\n", "NOT_FOUND\r\n");
}

#[test]
fn lifetimes_are_relative_absolute_negative_or_the_default() {
    let ttl_default = Duration::from_secs(100);
    let server = TestServer::with(Options { ttl_default, ..options() });
    let mut client = server.connect();
    client.ask("set rel 0 10 1\r\nx\r\nset abs 0 1800000020 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
    client.ask("set neg 0 -1 1\r\nx\r\nset past 0 1700000000 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
    client.ask("set none 0 0 1\r\nx\r\nset max 0 2000000000 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
    client.ask("get neg past\r\n", "END\r\n");
    let value = |key: &str| format!("VALUE {key} 0 1\r\nx\r\n");
    let all = [value("rel"), value("abs"), value("none"), value("max"), "END\r\n".to_owned()];
    let get = "get rel abs none max\r\n";
    client.ask(get, all.concat());
    server.clock.advance(Duration::from_secs(10));
    client.ask(get, all[1..].concat());
    server.clock.advance(Duration::from_secs(10));
    client.ask(get, all[2..].concat());
    server.clock.advance(Duration::from_secs(80));
    client.ask(get, all[3..].concat());
    server.clock.advance(Duration::from_secs(300 * 86_400));
    client.ask(get, all[3..].concat());
    server.clock.advance(Duration::from_secs(65 * 86_400));
    client.ask(get, "END\r\n");
}

#[test]
fn a_touch_without_a_lifetime_gives_the_default() {
    let ttl_default = Duration::from_secs(100);
    let server = TestServer::with(Options { ttl_default, ..options() });
    let value = "VALUE a 0 1\r\nx\r\nEND\r\n";
    for touch in
        ["touch a 0 noreply\r\nget a\r\n", "gat 0 a\r\n", "add a 0 0 1 noreply\r\nx\r\nget a\r\n"]
    {
        let mut client = server.connect();
        let lifetime = if touch.starts_with("add") { "-1" } else { "5000" };
        client.ask(format!("set a 0 {lifetime} 1\r\nx\r\n"), "STORED\r\n");
        client.ask(touch, value);
        server.clock.advance(Duration::from_secs(99));
        client.ask("get a\r\n", value);
        server.clock.advance(Duration::from_secs(1));
        client.ask("get a\r\n", "END\r\n");
    }
}

#[test]
fn absolute_lifetimes_are_distances_from_the_wall_clock_at_that_moment() {
    const DAY: i64 = 86_400;
    let server = TestServer::start();
    let mut client = server.connect();
    let value = "VALUE a 0 1\r\nx\r\nEND\r\n";
    // Behind and ahead at the start and set right later; and past 2106.
    for wall in [5 * DAY, 1_790_000_000, 1_800_000_000, 2_100_000_000, (1 << 32) + 7, 1 << 40] {
        server.clock.set_wall(wall);
        let (end, past) = (wall + 50 * DAY, wall);
        for ask in [format!("set a 0 {end} 1\r\nx\r\n"), format!("touch a {end}\r\n")] {
            client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
            client.send(&ask);
            client.read_until("ED\r\n");
            server.clock.advance(Duration::from_secs(50 * 86_400 - 1));
            client.ask("get a\r\n", value);
            server.clock.advance(Duration::from_secs(1));
            client.ask("get a\r\n", "END\r\n");
            server.clock.set_wall(wall);
        }
        if past > 30 * DAY {
            client.ask(format!("set a 0 {past} 1\r\nx\r\nget a\r\n"), "STORED\r\nEND\r\n");
            client.ask(
                format!("set a 0 {} 1\r\nx\r\nget a\r\n", past + 1),
                format!("STORED\r\n{value}"),
            );
            client.ask(format!("gat {past} a\r\nget a\r\n"), format!("{value}END\r\n"));
        }
        // A step of the clock while running moves no expiry.
        client.ask(format!("set a 0 {end} 1\r\nx\r\n"), "STORED\r\n");
        server.clock.set_wall(wall + 400 * DAY);
        client.ask("get a\r\n", value);
        server.clock.set_wall(wall - 400 * DAY);
        server.clock.advance(Duration::from_secs(50 * 86_400));
        client.ask("get a\r\n", "END\r\n");
    }
}

#[test]
fn what_memcached_takes_for_negative_is_over_at_once() {
    let server = TestServer::start();
    let mut client = server.connect();
    for exptime in [1_i64 << 31, (1 << 32) - 1] {
        client.ask(format!("set a 0 {exptime} 1\r\nx\r\nget a\r\n"), "STORED\r\nEND\r\n");
        client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
        client.ask(format!("touch a {exptime}\r\nget a\r\n"), "TOUCHED\r\nEND\r\n");
    }
    let last = (1_i64 << 31) - 1;
    client.ask(
        format!("set a 0 {last} 1\r\nx\r\nget a\r\n"),
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    );
}

#[test]
fn a_delayed_flush_at_a_calendar_time_goes_by_the_wall_clock() {
    let server = TestServer::start();
    let mut client = server.connect();
    server.clock.set_wall(1_700_000_000);
    let value = "VALUE a 0 1\r\nx\r\nEND\r\n";
    client.ask("set a 0 0 1\r\nx\r\nflush_all 1700000010\r\n", "STORED\r\nOK\r\n");
    server.clock.set_wall(1_800_000_000);
    std::thread::sleep(Duration::from_millis(200));
    client.ask("get a\r\n", value);
    server.clock.advance(Duration::from_secs(10));
    eventually_missing(&mut client);
}

#[test]
fn stats_tell_the_time_of_the_wall_clock() {
    let server = TestServer::start();
    server.clock.set_wall(1_234_567_890);
    let mut client = server.connect();
    client.send("stats\r\n");
    assert!(client.read_until("END\r\n").contains("STAT time 1234567890\r\n"));
}

#[test]
fn touch_and_gat_change_the_lifetime() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("touch a 10\r\ngat 10 a\r\n", "NOT_FOUND\r\nEND\r\n");
    client.ask("set a 3 10 1\r\nx\r\ntouch a 20\r\n", "STORED\r\nTOUCHED\r\n");
    server.clock.advance(Duration::from_secs(15));
    client.ask("gat 20 a nope\r\n", "VALUE a 3 1\r\nx\r\nEND\r\n");
    server.clock.advance(Duration::from_secs(15));
    client.send("gats 0 a\r\n");
    assert!(client.read_until("END\r\n").starts_with("VALUE a 3 1 "));
    server.clock.advance(Duration::from_secs(100));
    client.ask("touch a 50 noreply\r\nget a\r\n", "VALUE a 3 1\r\nx\r\nEND\r\n");
    client.ask("gat -1 a\r\nget a\r\n", "VALUE a 3 1\r\nx\r\nEND\r\nEND\r\n");
    client.ask("gat x a\r\n", "CLIENT_ERROR invalid exptime argument\r\n");
    client.ask("touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n");
}

/// A flush runs beside the commands: waits for it.
fn eventually_missing(client: &mut Client) {
    for _ in 0..1000 {
        client.send("get a\r\n");
        if client.read_until("END\r\n") == "END\r\n" {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    client.ask("get a\r\n", "END\r\n");
}

#[test]
fn flush_all_works_now_or_later() {
    let server = TestServer::start();
    let mut client = server.connect();
    let value = "VALUE a 0 1\r\nx\r\nEND\r\n";
    client.ask("set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\n", "STORED\r\nOK\r\nEND\r\n");
    client.ask("set a 0 0 1\r\nx\r\nflush_all noreply\r\nget a\r\n", "STORED\r\nEND\r\n");
    client.ask("set a 0 0 1\r\nx\r\nflush_all 10\r\nget a\r\n", format!("STORED\r\nOK\r\n{value}"));
    client.ask("flush_all 20 noreply\r\nget a\r\n", value);
    server.clock.advance(Duration::from_secs(15));
    std::thread::sleep(Duration::from_millis(150));
    client.ask("get a\r\n", value);
    server.clock.advance(Duration::from_secs(5));
    eventually_missing(&mut client);
    client.ask("flush_all 5\r\nflush_all 0\r\nset a 0 0 1\r\nx\r\n", "OK\r\nOK\r\nSTORED\r\n");
    server.clock.advance(Duration::from_secs(10));
    std::thread::sleep(Duration::from_millis(150));
    client.ask("get a\r\n", value);
    client.ask("flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n");
}

#[test]
fn administrative_commands_answer() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("version\r\n", "VERSION 1.6.40\r\n");
    client.ask("verbosity 1\r\nverbosity 1 noreply\r\nverbosity\r\n", "OK\r\nERROR\r\n");
    client.ask("cache_memlimit 64 noreply\r\ncache_memlimit 64\r\n", "OK\r\n");
    client.ask("shutdown\r\n", "ERROR: shutdown not enabled\r\n");
    client.ask("mx a v\r\nnonsense\r\n\r\n", "ERROR\r\nERROR\r\nERROR\r\n");
    client.ask("quit\r\nversion\r\n", "");
    assert_eq!(client.rest(), b"");
}

#[test]
fn stats_count_what_happened_and_can_be_reset() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set n 0 0 1\r\n1\r\nget n nope\r\n", "STORED\r\nVALUE n 0 1\r\n1\r\nEND\r\n");
    client.ask("incr n 1\r\ndelete x\r\ntouch n 0\r\n", "2\r\nNOT_FOUND\r\nTOUCHED\r\n");
    client.send("stats\r\n");
    let stats = client.read_until("END\r\n");
    for line in [
        "cmd_get 2",
        "get_hits 1",
        "get_misses 1",
        "cmd_set 1",
        "incr_hits 1",
        "delete_misses 1",
        "touch_hits 1",
        "curr_connections 1",
        "threads 2",
    ] {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line} in {stats}");
    }
    // Which tier answers depends on how far the flush of the entry has come.
    let tier = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(tier("hits_ram") + tier("hits_log") + tier("hits_disk"), 1, "{stats}");
    client.ask("stats reset\r\n", "RESET\r\n");
    client.send("stats\r\n");
    assert!(client.read_until("END\r\n").contains("STAT cmd_get 0\r\n"));
    assert_eq!(server.snapshot().counts.cmd_get, 2);
    client.send("stats settings\r\n");
    assert!(client.read_until("END\r\n").contains("STAT item_size_max 4194304\r\n"));
    client.ask("stats conns\r\n", "END\r\n");
    client.send("stats items\r\n");
    let items = client.read_until("END\r\n");
    client.send("stats slabs\r\n");
    let slabs = client.read_until("END\r\n");
    let entries = server.cache.stats().store.entries;
    assert!(items.starts_with(&format!("STAT items:1:number {entries}\r\n")), "{items}");
    for line in ["STAT 1:chunk_size 16", "STAT 1:get_hits 0", "STAT active_slabs 1"] {
        assert!(slabs.contains(&format!("{line}\r\n")), "{slabs}");
    }
    let none = "END\r\nSTAT active_slabs 0\r\nSTAT total_malloced 0\r\nEND\r\n";
    TestServer::start().connect().ask("stats items\r\nstats slabs\r\n", none);
    client.ask("stats sizes\r\n", "STAT sizes_status disabled\r\nEND\r\n");
    client.ask("stats detail\r\n", "CLIENT_ERROR usage: stats detail on|off|dump\r\n");
    client.ask("stats nonsense\r\n", "ERROR\r\n");
}

/// The answer to `stats` with these words, by name.
fn stats(client: &mut Client, words: &str) -> HashMap<String, String> {
    client.send(format!("stats{words}\r\n"));
    let text = client.read_until("END\r\n");
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn stats_have_what_exporters_read() {
    let server = TestServer::start();
    let mut client = server.connect();
    let stats = |client: &mut Client, words| stats(client, words);
    let general = "pid uptime time version pointer_size rusage_user rusage_system max_connections \
        curr_connections total_connections rejected_connections connection_structures cmd_get cmd_set \
        cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses \
        delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval \
        touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors idle_kicks \
        bytes_read bytes_written limit_maxbytes accepting_conns listen_disabled_num \
        time_in_listen_disabled_us threads conn_yields hash_bytes bytes curr_items total_items \
        evictions reclaimed rawcached_version";
    let settings = "maxbytes maxconns udpport verbosity evictions num_threads item_size_max \
        idle_timeout cas_enabled auth_enabled_sasl lru_crawler lru_maintainer_thread flush_enabled";
    for (words, names) in [("", general), (" settings", settings)] {
        let found = stats(&mut client, words);
        for name in names.split_whitespace() {
            assert!(found.contains_key(name), "{name} of stats{words}: {found:?}");
        }
    }
    let found = stats(&mut client, "");
    let numbers = found["version"].split('.').map(|part| part.parse::<u32>().unwrap());
    assert_eq!(numbers.count(), 3);
    assert_eq!(found["rawcached_version"], env!("CARGO_PKG_VERSION"));
    assert!(found["rusage_user"].parse::<f64>().unwrap() >= 0.0);
}

#[test]
fn stats_of_the_store_are_true() {
    let server = HttpServer::start();
    let mut client = server.connect();
    server.put("h", "", b"over HTTP").expect(201);
    client.ask("set a 0 10 1\r\nx\r\nset b 0 0 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
    client.ask("append b 0 0 1\r\ny\r\nadd a 0 0 1\r\nx\r\n", "STORED\r\nNOT_STORED\r\n");
    let found = stats(&mut client, "");
    let is = |found: &HashMap<String, String>, name: &str, value: u64| {
        assert_eq!(found[name], value.to_string(), "{name} in {found:?}");
    };
    for (name, value) in [
        ("cmd_set", 4),
        ("total_items", 3),
        ("curr_items", 3),
        ("curr_connections", 1),
        ("total_connections", 1),
        ("get_expired", 0),
        ("get_flushed", 0),
        ("limit_maxbytes", server.cache.stats().store.capacity_bytes),
        ("bytes", server.cache.stats().store.live_bytes),
        ("evictions", 0),
        ("accepting_conns", 1),
    ] {
        is(&found, name, value);
    }
    server.clock.advance(Duration::from_secs(20));
    client.ask("get a a\r\n", "END\r\n");
    let found = stats(&mut client, "");
    is(&found, "get_expired", 1);
    is(&found, "get_flushed", 0);
    client.ask("flush_all\r\nget b b\r\n", "OK\r\nEND\r\n");
    let found = stats(&mut client, "");
    is(&found, "get_expired", 1);
    is(&found, "get_flushed", 1);
    is(&found, "curr_items", 1);
    client.ask("stats reset\r\n", "RESET\r\n");
    let found = stats(&mut client, "");
    is(&found, "get_expired", 0);
    is(&found, "get_flushed", 0);
    is(&found, "total_items", 0);
}

#[test]
fn what_expired_before_its_region_is_freed_is_reclaimed_and_not_evicted() {
    let server = TestServer::start();
    let mut client = server.connect();
    let value = "v".repeat(4 << 20);
    let fill = |client: &mut Client, exptime: &str, count: usize| {
        for n in 0..count {
            let request = format!("set {exptime}-{n} 0 {exptime} {}\r\n{value}\r\n", value.len());
            client.ask(request, "STORED\r\n");
        }
    };
    fill(&mut client, "10", 25);
    server.clock.advance(Duration::from_secs(20));
    // 128 MiB are full before the last of these.
    fill(&mut client, "5000", 12);
    let dropped = |client: &mut Client| {
        let found = stats(client, "");
        ["reclaimed", "evictions"].map(|name| found[name].parse::<u64>().unwrap())
    };
    // The region in which the ones meet the others may be among what was freed.
    let [reclaimed, evicted] = dropped(&mut client);
    assert!(reclaimed > 2 * evicted, "{reclaimed} reclaimed, {evicted} evicted");
    fill(&mut client, "4000", 40);
    let [reclaimed, evicted] = dropped(&mut client);
    assert!(evicted > reclaimed, "{reclaimed} reclaimed, {evicted} evicted");
}
#[test]
fn a_value_of_the_wrong_length_is_refused_and_the_old_one_stays() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set a 0 0 3\r\nold\r\n", "STORED\r\n");
    let bad = "CLIENT_ERROR bad data chunk\r\n";
    client.ask("set a 0 0 3\r\nabcdef\r\n", format!("{bad}ERROR\r\n"));
    client.ask("set a 0 0 3\r\na\r\nget a\r\n", format!("{bad}ERROR\r\n"));
    client.ask("set a 0 0 3 noreply\r\nabcdef\r\n", "ERROR\r\n");
    let long = "x".repeat(3 << 20);
    client.ask(format!("set a 0 0 {}\r\n{long}xxf\r\n", long.len()), format!("{bad}ERROR\r\n"));
    client.ask("get a\r\n", "VALUE a 0 3\r\nold\r\nEND\r\n");
}

#[test]
fn values_over_the_limit_are_swallowed_and_take_the_old_value_with_them() {
    let server = TestServer::with(Options { value_len_max: 1000, ..options() });
    let mut client = server.connect();
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    for len in [1001, 100_000, 3 << 20] {
        client.ask("set a 0 0 1\r\nx\r\nset b 0 0 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
        let value = "get a\r\n".repeat(len / 7 + 1);
        let value = &value[..len];
        client.ask(format!("set a 0 0 {len}\r\n{value}\r\n"), too_large);
        client.ask("get a\r\n", "END\r\n");
        client.ask(format!("append b 0 0 {len}\r\n{value}\r\n"), too_large);
        client.ask(format!("set b 0 0 {len} noreply\r\n{value}\r\nget b\r\n"), "END\r\n");
    }
    let full = "x".repeat(1000);
    client.ask(format!("set a 0 0 1000\r\n{full}\r\n"), "STORED\r\n");
    client.ask("append a 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("get a\r\n", format!("VALUE a 0 1000\r\n{full}\r\nEND\r\n"));
}

#[test]
fn values_of_every_size_class_come_back_exactly() {
    let server = TestServer::start();
    let mut client = server.connect();
    let lens = [0, 1, 8191, 8192, 16_000, 16_384, 70_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    for len in lens.into_iter().chain([4 << 20]) {
        let value: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let request = [format!("set k 1 0 {len}\r\n").as_bytes(), &value, b"\r\n"].concat();
        client.ask(&request, "STORED\r\n");
        let answer = [format!("VALUE k 1 {len}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
        client.ask("get k\r\n", &answer);
        client.ask("append k 0 0 1\r\n!\r\n", if len == 4 << 20 { "NOT_STORED" } else { "STORED" });
        client.expect("\r\n");
    }
}

#[test]
fn noreply_is_silent() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send(
        "set a 0 0 1 noreply\r\nx\r\nadd a 0 0 1 noreply\r\nx\r\ncas a 0 0 1 9 noreply\r\nx\r\n",
    );
    client.send("append a 0 0 1 noreply\r\ny\r\ndelete nope noreply\r\ntouch a 0 noreply\r\n");
    client.send("incr a 1 noreply\r\nincr a x noreply\r\nset a 0 x 1 noreply\r\nv\r\n");
    client.ask("get a\r\n", "VALUE a 0 2\r\nxy\r\nEND\r\n");
}
