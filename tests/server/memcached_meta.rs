//! The meta commands of the memcached protocol over real Unix sockets. Goal: each does what it does in memcached,
//! and what clients easily get wrong of it stays right (docs/memcached.md). Method: bytes in, bytes out; time is moved,
//! not waited for.

use std::time::Duration;

use crate::support::memcached::Client;
use crate::support::server::{HttpServer, TestServer, options};
use rawcached::cache::Purge;
use rawcached::server::Options;
use rawcached::server::listener::Listener;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";

/// The CAS value of a key.
fn cas(client: &mut Client, key: &str) -> u64 {
    let line = client.command(&format!("mg {key} c u"));
    line.split(' ').nth(1).unwrap().strip_prefix('c').unwrap().parse().unwrap()
}

#[test]
fn values_are_stored_and_come_back_with_what_was_asked_for() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("mg a v\r\nmg a\r\n", "EN\r\nEN\r\n");
    client.ask("ms a 3 T100 F5\r\nabc\r\n", "HD\r\n");
    client.ask("mg a s v t f k Oxyz\r\n", "VA 3 s3 t100 f5 ka Oxyz\r\nabc\r\n");
    client.ask("mg a k f t s\r\nmg a\r\n", "HD ka f5 t100 s3\r\nHD\r\n");
    client.ask("ms a 2\r\nhi\r\nmg a f t v\r\n", "HD\r\nVA 2 f0 t-1\r\nhi\r\n");
    client.ask("mg a f\n", "HD f0\r\n");
    client.ask("ms empty 0\r\n\r\nmg empty v s\r\n", "HD\r\nVA 0 s0\r\n\r\n");
    client.ask("ms bad 2\r\nabcd\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n");
    client.ask("mg bad P1 L2\r\n", "EN\r\n");
}

#[test]
fn classic_and_meta_commands_see_the_same_entries_on_one_connection() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask(
        "set a 7 100 1\r\nx\r\nmg a v f t\r\nms b 1 F9 T50\r\ny\r\nget a b\r\nmd a\r\nget a\r\n\
         set n 3 0 1\r\n5\r\nma n v\r\nincr n 1\r\nmg n v f t\r\ntouch n 60\r\nmg n t\r\nmn\r\n",
        "STORED\r\nVA 1 f7 t100\r\nx\r\nHD\r\nVALUE a 7 1\r\nx\r\nVALUE b 9 1\r\ny\r\nEND\r\nHD\r\nEND\r\n\
         STORED\r\nVA 1\r\n6\r\n7\r\nVA 1 f3 t-1\r\n7\r\nTOUCHED\r\nHD t60\r\nMN\r\n",
    );
    client.ask("gat 0 n\r\nmg n t\r\n", "VALUE n 3 1\r\n7\r\nEND\r\nHD t-1\r\n");
    client.ask("append n 0 0 1\r\n8\r\nmg n v t\r\n", "STORED\r\nVA 2 t-1\r\n78\r\n");
}

#[test]
fn commands_in_one_piece_are_answered_in_order_over_tcp_too() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let server = TestServer::serving(options(), vec![Listener::from_tcp(socket).unwrap()]);
    let commands: String = (0..200)
        .map(|n| format!("ms k{n} 2 T100 q\r\n{:02}\r\nmg k{n} v O{n}\r\nmg none q\r\n", n % 100))
        .collect::<String>()
        + "mn\r\n";
    let expected: String =
        (0..200).map(|n| format!("VA 2 O{n}\r\n{:02}\r\n", n % 100)).collect::<String>() + "MN\r\n";
    server.connect().ask(&commands, &expected);
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut tcp, commands.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    std::io::Read::read_exact(&mut tcp, &mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
}

#[test]
fn bad_lines_get_their_errors_and_only_their_values_are_skipped() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("mg\r\nmd\r\nma\r\nme\r\n", BAD_FORMAT.repeat(4));
    client.ask("mg a s s\r\n", "CLIENT_ERROR duplicate flag\r\n");
    client.ask("mg a !\r\n", "CLIENT_ERROR invalid flag\r\n");
    client.ask(
        "mg a 1 2 3 4 5 6 7 8 9 0 a b c d e f g h i j k l\r\n",
        "CLIENT_ERROR options flags are too long\r\n",
    );
    client.ask(format!("mg a O{}\r\n", "x".repeat(32)), "CLIENT_ERROR opaque token too long\r\n");
    client.ask(format!("mg a O{}\r\n", "x".repeat(31)), "EN O".to_owned() + &"x".repeat(31));
    client.ask(format!("\r\nmg {}\r\n", "k".repeat(251)), format!("\r\nERROR\r\n{BAD_FORMAT}"));
    // 188 bytes are 252 in base64.
    let long = "A".repeat(252);
    client.ask(format!("mg {long} b\r\n"), BAD_FORMAT);
    client.ask("ms k abc\r\nmg k\r\n", format!("{BAD_FORMAT}EN\r\n"));
    client.ask("ms k 4 ! q\r\nmg k\r\nmn\r\n", "CLIENT_ERROR invalid flag\r\nMN\r\n");
    client.ask(format!("ms {long} 4\r\nmn\r\n\r\nmn\r\n"), format!("{BAD_FORMAT}MN\r\n"));
    client.ask("mn x\r\nmg k T\r\n", "MN\r\nCLIENT_ERROR bad token in command line format\r\n");
}

#[test]
fn quiet_hides_the_usual_outcome_and_no_error() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1 q\r\nx\r\nmg a q\r\nmg a q v\r\n", "HD\r\nVA 1\r\nx\r\n");
    client.ask("mg none q k Ox\r\nmn\r\n", "MN\r\n");
    client.ask("ms a 1 ME q\r\ny\r\nms none 1 MR q\r\ny\r\n", "NS\r\nNS\r\n");
    client.ask("ms a 1 C1 q\r\ny\r\nms none 1 C1 q\r\ny\r\n", "EX\r\nNF\r\n");
    client.ask("md none q\r\nmd a C1 q k O1\r\n", "NF\r\nEX ka O1\r\n");
    client.ask("md a q\r\nmd a q\r\n", "NF\r\n");
    client.ask("ma none q\r\nms n 1\r\n5\r\nma n q\r\nma n q v\r\n", "NF\r\nHD\r\n");
    client.ask("ma new q N0 J9\r\nma new v\r\n", "VA 2\r\n10\r\n");
    client.ask("ma n q C1\r\nma n q MX\r\n", "EX\r\nCLIENT_ERROR invalid mode for ma M token\r\n");
    client.ask(
        "ms t 1 q\r\nx\r\nma t q\r\nmn\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\nMN\r\n",
    );
}

#[test]
fn key_and_opaque_come_back_in_order_also_of_a_miss() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("mg a Ox k\r\nmg a k t Ox v\r\n", "EN Ox ka\r\nEN ka Ox\r\n");
    client.ask("md a k Ox\r\nma a Ox k\r\n", "NF ka Ox\r\nNF Ox ka\r\n");
    client.ask("ms a 1 MR k Ox\r\nx\r\nms a 1 Ox k\r\nx\r\n", "NS ka Ox\r\nHD Ox ka\r\n");
    client.ask("ms a 1 MA s k\r\ny\r\n", "HD s2 ka\r\n");
}

#[test]
fn touching_shows_the_lifetime_from_where_it_stands() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1 T100\r\n4\r\n", "HD\r\n");
    server.clock.advance(Duration::from_secs(10));
    client.ask("mg a t T30\r\nmg a T40 t\r\n", "HD t90\r\nHD t40\r\n");
    client.ask("mg a N9 t T40\r\nma a N9 t\r\n", "HD t40\r\nHD t40\r\n");
    client.ask("mg a t v T0\r\nmg a t\r\n", "VA 1 t40\r\n5\r\nHD t-1\r\n");
    client.ask("mg a T-1 v\r\nmg a\r\n", "VA 1\r\n5\r\nEN\r\n");
    client.ask(
        "ms n 1 T100\r\n5\r\nma n t T30 v\r\nma n T40 t\r\n",
        "HD\r\nVA 1 t100\r\n6\r\nHD t40\r\n",
    );
    client.ask("mg n t\r\nma n T0\r\nmg n t\r\n", "HD t40\r\nHD\r\nHD t-1\r\n");
    client.ask("ms e 1 T-1\r\nx\r\nmg e\r\n", "HD\r\nEN\r\n");
}

/// What ends after the default is told from what was asked to end, and ends all the same.
#[test]
fn an_entry_without_an_end_ends_after_the_default() {
    let ttl_default = Duration::from_secs(100);
    for ttl_max in [100, 1000] {
        let ttl_max = Duration::from_secs(ttl_max);
        let server = TestServer::with(Options { ttl_default, ttl_max, ..options() });
        let mut client = server.connect();
        client.ask("ms a 1\r\n1\r\nms b 1 T100\r\nx\r\nma a\r\n", "HD\r\nHD\r\nHD\r\n");
        server.clock.advance(Duration::from_secs(99));
        client.ask("mg a t v\r\nmg b t\r\nme a\r\n", "VA 1 t-1\r\n2\r\nHD t1\r\nME a exp=-1 la=0 ");
        client.line();
        client.ask("touch b 0\r\nmg b t\r\n", "TOUCHED\r\nHD t-1\r\n");
        server.clock.advance(Duration::from_secs(1));
        client.ask("mg a\r\nadd a 0 0 1\r\nx\r\nmg b\r\n", "EN\r\nSTORED\r\nHD\r\n");
    }
}

#[test]
fn one_client_wins_an_entry_that_is_missing() {
    let server = TestServer::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.ask("mg a s t N30 v t k\r\n", "CLIENT_ERROR duplicate flag\r\n");
    client.ask("mg a s t N30 v k\r\n", "VA 0 s0 t-1 ka W\r\n\r\n");
    other.ask("mg a t N30 v\r\nmg a\r\n", "VA 0 t30 Z\r\n\r\nHD Z\r\n");
    other.ask("get a\r\nadd a 0 0 1\r\nx\r\n", "VALUE a 0 0\r\n\r\nEND\r\nNOT_STORED\r\n");
    client.ask("mg b N30 t E77 c\r\nmg b c\r\n", "HD t30 c77 W\r\nHD c77 Z\r\n");
    let cas = cas(&mut client, "a");
    other.ask("ms a 2 C1\r\nno\r\n", "EX\r\n");
    client
        .ask(format!("ms a 3 C{cas} T90\r\nyes\r\nmg a v N30 t\r\n"), "HD\r\nVA 3 t90\r\nyes\r\n");
    client.ask("mg c N30\r\nms c 1 MA\r\nx\r\nmg c v\r\n", "HD W\r\nHD\r\nVA 1\r\nx\r\n");
    client.ask("mg d N30 T60 t\r\nmg e T60 N30 t\r\n", "HD t60 W\r\nHD t30 W\r\n");
    server.clock.advance(Duration::from_secs(30));
    other.ask("mg b N30\r\n", "HD W\r\n");
}

#[test]
fn of_many_clients_at_once_one_wins() {
    let server = TestServer::start();
    for round in 0..20 {
        let wins: usize = std::thread::scope(|scope| {
            let client = || {
                let answer = server.connect().command(&format!("mg k{round} N30"));
                assert!(answer == "HD W" || answer == "HD Z", "{answer}");
                usize::from(answer == "HD W")
            };
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(wins, 1, "round {round}");
    }
}

#[test]
fn one_client_wins_an_entry_that_is_about_to_end() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1 T100\r\nx\r\nms never 1\r\nx\r\n", "HD\r\nHD\r\n");
    // Its life must be shorter.
    client.ask("mg a R100\r\nmg never R1000\r\nmg a R0\r\n", "HD\r\nHD\r\nHD\r\n");
    client.ask("mg a t R101\r\nmg a R101\r\nmg a\r\n", "HD t100 W\r\nHD Z\r\nHD Z\r\n");
    client.ask("ms a 1 T100\r\ny\r\nmg a\r\nmg a R30\r\n", "HD\r\nHD\r\nHD\r\n");
    // What stands first is done first.
    client.ask("mg a R50 T40\r\nmg a R30 T20\r\nmg a T10 R20\r\n", "HD\r\nHD\r\nHD W\r\n");
    client.ask("mg a T200\r\n", "HD Z\r\n");
}

#[test]
fn a_stale_entry_is_served_as_such_until_it_is_stored_anew() {
    let server = TestServer::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.ask("md a I\r\n", "NF\r\n");
    client.ask("ms a 3 F7\r\nold\r\n", "HD\r\n");
    let first = cas(&mut client, "a");
    client.ask("md a I T30 Ox k\r\n", "HD Ox ka\r\n");
    let marked = cas(&mut other, "a");
    assert!(marked > first);
    // `u` above has won it.
    client.ask("md a I q\r\nmg a v t f\r\n", "VA 3 t30 f7 X W\r\nold\r\n");
    assert!(cas(&mut other, "a") > marked);
    other.ask("mg a v\r\nget a\r\n", "VA 3 Z X\r\nold\r\nVALUE a 7 3\r\nold\r\nEND\r\n");
    other.ask("touch a 60\r\nmg a t T50\r\n", "TOUCHED\r\nHD t60 Z X\r\n");
    // A lower CAS value: it is stored, and stays stale.
    let present = cas(&mut client, "a");
    client.ask(format!("ms a 4 C{} T500\r\nlate\r\n", present - 1), "EX\r\n");
    client.ask(format!("ms a 4 C{} I T500\r\nhigh\r\n", present + 1000), "EX\r\n");
    client.ask(format!("ms a 4 C{} I T500 F1\r\nlate\r\n", present - 1), "HD\r\n");
    client.ask("mg a v t f\r\n", "VA 4 t50 f1 Z X\r\nlate\r\n");
    // What is made of a stale value is stale.
    client.ask("append a 0 0 1\r\n!\r\nmg a v\r\n", "STORED\r\nVA 5 Z X\r\nlate!\r\n");
    let present = cas(&mut client, "a");
    client
        .ask(format!("ms a 3 C{present} T90\r\nnew\r\nmg a v t\r\n"), "HD\r\nVA 3 t90\r\nnew\r\n");
    client.ask("ms none 1 C5 I\r\nx\r\n", "NF\r\n");
    client.ask(
        "ms n 1\r\n5\r\nmd n I\r\nma n v\r\nmg n v\r\n",
        "HD\r\nHD\r\nVA 1\r\n6\r\nVA 1 X W\r\n6\r\n",
    );
    client.ask("md a I T-1\r\nmg a\r\n", "HD\r\nEN\r\n");
}

#[test]
fn cas_values_are_compared_and_may_be_given() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask(
        "ms a 1 E5 c\r\nx\r\nmg a c\r\ngets a\r\n",
        "HD c5\r\nHD c5\r\nVALUE a 0 1 5\r\nx\r\nEND\r\n",
    );
    client.ask("ms a 1 C4 c\r\ny\r\nms a 1 C5 E9 c\r\ny\r\n", "EX c0\r\nHD c9\r\n");
    client.ask("cas a 0 0 1 5\r\nz\r\ncas a 0 0 1 9\r\nz\r\n", "EXISTS\r\nSTORED\r\n");
    let own = cas(&mut client, "a");
    assert!(own > 9);
    client.ask(format!("md a C9\r\nmd a C{own}\r\nmd a C{own}\r\n"), "EX\r\nHD\r\nNF\r\n");
    // An explicit value hides the entry's own.
    client.ask("ms a 1\r\nx\r\n", "HD\r\n");
    let own = cas(&mut client, "a");
    client.ask(
        format!("ms a 1 C{own} E{own}\r\ny\r\nmg a c v\r\n"),
        format!("HD\r\nVA 1 c{own}\r\ny\r\n"),
    );
    client.ask(format!("ms a 1 C{own} E3\r\nz\r\nms a 1 C{own}\r\nw\r\n"), "HD\r\nEX\r\n");
    client.ask("ms a 1 MA C2\r\n!\r\nms a 1 MA C3 E4 c s\r\n!\r\n", "EX\r\nHD c4 s2\r\n");
    client.ask(
        "ms none 1 MP C3\r\n!\r\nms none 1 MR C3\r\n!\r\nms none 1 ME C3\r\n!\r\n",
        "NS\r\nNF\r\nHD\r\n",
    );
    client.ask(
        "ms n 1\r\n5\r\nma n E7 c\r\nma n C6\r\nma n C7 v\r\nma n C0\r\n",
        "HD\r\nHD c7\r\nEX\r\nVA 1\r\n7\r\nHD\r\n",
    );
    client.ask("md n I E8\r\nmg n c\r\n", "HD\r\nHD c8 X W\r\n");
    // A touch leaves it.
    client.ask(
        "ms t 1 E5\r\nx\r\ntouch t 50\r\nmg t c T0\r\nmg t c\r\n",
        "HD\r\nTOUCHED\r\nHD c5\r\nHD c5\r\n",
    );
}

#[test]
fn a_value_that_the_client_knows_is_left_out() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 3 E5\r\nabc\r\n", "HD\r\n");
    client.ask("mg a v s C5\r\nmg a v s C4\r\nmg a C4\r\n", "HD s3\r\nVA 3 s3\r\nabc\r\nHD\r\n");
}

#[test]
fn an_emptied_entry_keeps_its_cas_value() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 3 F5\r\nabc\r\n", "HD\r\n");
    let before = cas(&mut client, "a");
    client.ask("md a x k\r\nmg a v f t c\r\n", format!("HD ka\r\nVA 0 f0 t-1 c{before}\r\n\r\n"));
    client.ask("md a x T50 E9\r\nmg a v t c\r\n", "HD\r\nVA 0 t50 c9\r\n\r\n");
    client.ask("ms b 3 F5\r\nabc\r\n", "HD\r\n");
    let before = cas(&mut client, "b");
    client.ask("md b I x T30\r\nmg b v f t\r\n", "HD\r\nVA 0 f0 t30 X W\r\n\r\n");
    assert!(cas(&mut client, "b") > before);
    client.ask("md none x\r\nmd a x C1\r\n", "NF\r\nEX\r\n");
}

#[test]
fn modes_of_ms_store_as_classic_commands_do() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1 MR\r\nx\r\nms a 1 MA\r\nx\r\nms a 1 MP\r\nx\r\n", "NS\r\nNS\r\nNS\r\n");
    client.ask("ms a 1 ME T100 F3\r\nb\r\nms a 1 ME\r\nx\r\n", "HD\r\nNS\r\n");
    client.ask(
        "ms a 1 MA F9 T50\r\nc\r\nms a 1 MP\r\na\r\nmg a v f t\r\n",
        "HD\r\nHD\r\nVA 3 f3 t100\r\nabc\r\n",
    );
    client.ask("ms a 1 MR\r\nx\r\nms a 1 MS\r\ny\r\nmg a v f\r\n", "HD\r\nHD\r\nVA 1 f0\r\ny\r\n");
    client.ask(
        "ms l 1 MA N50 F7 s\r\nx\r\nms l 1 MP N90 s\r\ny\r\nmg l v t f\r\n",
        "HD s1\r\nHD s2\r\nVA 2 t50 f7\r\nyx\r\n",
    );
    client.ask("ms a 1 MX\r\nx\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n");
}

#[test]
fn numbers_are_changed_and_made() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ma n\r\nma n N60 J13 v t\r\n", "NF\r\nVA 2 t60\r\n13\r\n");
    client.ask(
        "ma n v\r\nma n D5 v\r\nma n MD D100 v t\r\n",
        "VA 2\r\n14\r\nVA 2\r\n19\r\nVA 1 t60\r\n0\r\n",
    );
    client.ask("get n\r\n", "VALUE n 0 2\r\n0 \r\nEND\r\n");
    client.ask(
        "ma n D18446744073709551615 v\r\nma n v\r\n",
        "VA 20\r\n18446744073709551615\r\nVA 1\r\n0\r\n",
    );
    client.ask("ma z t N0\r\nmg z v t\r\n", "HD t-1\r\nVA 1 t-1\r\n0\r\n");
    client.ask(
        "ms t 1\r\nx\r\nma t\r\n",
        "HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    );
    client.ask("ma n Dx\r\nma n Jx\r\n", "CLIENT_ERROR invalid numeric delta value\r\nCLIENT_ERROR invalid numeric initial value\r\n");
    client.ask("ma n k Ox v c E5\r\n", "VA 1 kn Ox c5\r\n1\r\n");
}

#[test]
fn keys_of_any_bytes_are_written_in_base64() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask(
        "ms 8J+Nug== 4 b k\r\nbeer\r\nmg 8J+Nug== b k v\r\n",
        "HD k8J+Nug== b\r\nVA 4 k8J+Nug== b\r\nbeer\r\n",
    );
    client.ask("get \u{1f37a}\r\n", "VALUE \u{1f37a} 0 4\r\nbeer\r\nEND\r\n");
    // The entry remembers how its key was written.
    client.ask(
        "ms Zm9v 1 b\r\nx\r\nmg foo k\r\nms bar 1\r\nx\r\nmg YmFy b k\r\n",
        "HD\r\nHD kZm9v b\r\nHD\r\nHD kbar\r\n",
    );
    client.ask("ms Zm9v 1 b MA\r\ny\r\nmg foo k v\r\n", "HD\r\nVA 2 kZm9v b\r\nxy\r\n");
    client.ask(
        "mg bm9uZQ== b k\r\nmd bm9uZQ== k b O1\r\n",
        "EN kbm9uZQ== b\r\nNF kbm9uZQ== b O1\r\n",
    );
    // A space and a line end.
    client.ask("ms YSAKYg== 1 b\r\nz\r\nma YSAKYg== b N0 k\r\nmg YSAKYg== b v k\r\n", "HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nVA 1 kYSAKYg== b\r\nz\r\n");
    client.ask("ma bg== b N0 J5 k\r\nme bg== b\r\n", "HD kbg== b\r\nME bg== exp=-1 la=0 cas=");
    client.line();
    client.ask("md YSAKYg== b\r\nmg YSAKYg== b\r\n", "HD\r\nEN\r\n");
    client.ask("mg YS b\r\nmg Y!== b\r\n", "CLIENT_ERROR error decoding key\r\n".repeat(2));
}

#[test]
fn reads_are_noticed_unless_asked_not_to() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1\r\n1\r\n", "HD\r\n");
    server.clock.advance(Duration::from_secs(5));
    client.ask("mg a h l t u\r\nmg a h l\r\n", "HD h0 l5 t-1\r\nHD h0 l5\r\n");
    server.clock.advance(Duration::from_secs(3));
    client.ask("mg a u h l\r\nma a\r\nmg a h l\r\n", "HD h1 l3\r\nHD\r\nHD h1 l3\r\n");
    client.ask(
        "set a 0 0 1\r\n1\r\nmg a h u\r\nget a\r\nmg a h l\r\n",
        "STORED\r\nHD h0\r\nVALUE a 0 1\r\n1\r\nEND\r\nHD h1 l0\r\n",
    );
}

#[test]
fn an_entry_is_described() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("me a\r\nms a 3 T100 E5\r\nabc\r\n", "EN\r\nHD\r\n");
    server.clock.advance(Duration::from_secs(5));
    // Key, value and 16 bytes of metadata.
    client.ask("me a\r\n", "ME a exp=95 la=5 cas=5 fetch=no cls=1 size=20\r\n");
    client.ask("mg a\r\nme a\r\n", "HD\r\nME a exp=95 la=0 cas=5 fetch=yes cls=1 size=20\r\n");
}

#[test]
fn a_value_that_is_too_large_is_skipped_and_takes_the_old_one_along() {
    let server = TestServer::with(Options { value_len_max: 1000, ..options() });
    let mut client = server.connect();
    let large = "x".repeat(2_000_000);
    for (mode, old) in
        [("", "EN\r\n"), ("ME", "EN\r\n"), ("MA", "EN\r\n"), ("q", "EN\r\n"), ("C1", "EN\r\n")]
    {
        client.ask("ms a 1\r\nx\r\n", "HD\r\n");
        client.ask(
            format!("ms a 2000000 {mode}\r\n{large}\r\nmg a\r\n"),
            format!("{TOO_LARGE}{old}"),
        );
    }
}

#[test]
fn large_values_are_streamed_with_everything_that_small_ones_have() {
    let server = TestServer::start();
    let mut client = server.connect();
    let body = |byte: &str| byte.repeat(3_000_000);
    client.ask(
        format!("ms bGFyZ2U= 3000000 b F7 T100 E5 k c s O1\r\n{}\r\n", body("a")),
        "HD kbGFyZ2U= b c5 s3000000 O1\r\n",
    );
    client.ask("mg large s f t c k\r\n", "HD s3000000 f7 t100 c5 kbGFyZ2U= b\r\n");
    client.ask("mg large v s\r\n", format!("VA 3000000 s3000000\r\n{}\r\n", body("a")));
    client.ask(format!("ms large 3000000 C4\r\n{}\r\nmn\r\n", body("b")), "EX\r\nMN\r\n");
    client.ask(format!("ms none 3000000 C4 k\r\n{}\r\nmn\r\n", body("b")), "NF knone\r\nMN\r\n");
    client.ask(format!("ms large 3000000 C4 I F1\r\n{}\r\nmn\r\n", body("c")), "HD\r\nMN\r\n");
    client.ask("mg large s f t\r\n", "HD s3000000 f1 t100 X W\r\n");
    client.ask(
        format!("ms large 3000000 q\r\n{}\r\nmd large I\r\nmg large v\r\n", body("d")),
        format!("HD\r\nVA 3000000 X W\r\n{}\r\n", body("d")),
    );
    client.ask(format!("ms large 3000000 ME\r\n{}\r\n", body("e")), "NS\r\n");
}

#[test]
fn what_is_stale_or_to_be_brought_is_not_there_for_http() {
    let server = HttpServer::start();
    let mut client = server.connect();
    client.ask("ms a 1 F5\r\nx\r\nms b 1 E5 F5\r\nx\r\nmg stub N30\r\n", "HD\r\nHD\r\nHD W\r\n");
    let status = |key: &str| server.get(key, "").status;
    assert_eq!((status("a"), status("b")), (200, 200));
    assert_eq!(server.get("b", "").header("x-rawcached-flags"), Some("5"));
    assert_eq!(status("stub"), 404);
    client.ask("md a I\r\n", "HD\r\n");
    assert_eq!(status("a"), 404);
    assert_eq!(server.get("a", "Cache-Control: max-stale\r\n").status, 404);
    client.ask("ms a 1\r\ny\r\n", "HD\r\n");
    assert_eq!(status("a"), 200);
    // Who is told that it is not there may bring it, and others may not.
    client.ask("md a I\r\n", "HD\r\n");
    for key in ["a", "stub"] {
        assert_eq!(server.put(key, "If-Match: *\r\n", b"z").status, 412, "{key}");
        assert_eq!(server.put(key, "If-None-Match: *\r\n", b"z").status, 201, "{key}");
        assert_eq!(server.put(key, "If-None-Match: *\r\n", b"z").status, 412, "{key}");
        assert_eq!(status(key), 200);
    }
}

#[test]
fn what_http_stored_is_gone_here_when_it_is_marked_as_stale() {
    let server = HttpServer::start();
    let mut client = server.connect();
    assert_eq!(server.put("a", "", b"x").status, 201);
    client.ask("mg a v\r\nmd a I\r\nmg a v\r\n", "VA 1\r\nx\r\nHD\r\nEN\r\n");
    assert_eq!(server.get("a", "").status, 404);
}

#[test]
fn purges_prevail_over_marks() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("ms a 1\r\nx\r\nmd a I\r\n", "HD\r\nHD\r\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server.cache.purge_prefix(b"a", Purge::Soft)).unwrap();
    client.ask("mg a v\r\nmd a I\r\nms a 1 MR\r\nx\r\n", "EN\r\nNF\r\nHD\r\n");
    // What is made where nothing is found takes its place.
    let purge = || runtime.block_on(server.cache.purge_prefix(b"a", Purge::Soft)).unwrap();
    for made in ["mg a N30 k", "ma a N30 k", "ms a 0 MA N30 k\r\n"] {
        purge();
        let won = if made.starts_with("mg") { " W" } else { "" };
        client.ask(format!("{made}\r\nmg a t\r\n"), format!("HD ka{won}\r\nHD t30"));
        client.line();
    }
    client.ask("ms a 1\r\ny\r\nflush_all\r\nmg a\r\n", "HD\r\nOK\r\nEN\r\n");
}

#[test]
fn meta_commands_are_counted() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask(
        "ms a 1\r\nx\r\nmg a\r\nmg b\r\nmd a\r\nma a\r\nme a\r\nmn\r\nget a\r\n",
        "HD\r\nHD\r\nEN\r\nHD\r\nNF\r\nEN\r\nMN\r\nEND\r\n",
    );
    client.send("stats\r\n");
    let stats = client.read_until("END\r\n");
    for line in [
        "cmd_meta 7",
        "cmd_get 3",
        "get_hits 1",
        "get_misses 2",
        "cmd_set 1",
        "delete_hits 1",
        "incr_misses 1",
    ] {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line}: {stats}");
    }
}
