//! Goal: `serve` opens read-through listeners, from flags and from the file, and names each mistake in them.
//! Method: run the built binary with what a user has: a directory, flags, a file, its output.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::serve::{Daemon, check_config};
use crate::support::binary;
use crate::support::machine::{Missing, require};
use crate::support::waiting::eventually;
use crate::{directory, rawcached, stderr, stdout};

const DEVICE: &str = "[[device]]\npath = \"c.img\"\nsize = \"64MiB\"\n";
const UPSTREAM: &str = "http://127.0.0.1:8080";

fn start(directory: &Path, flags: &[&str]) -> Daemon {
    let mut command = rawcached(directory);
    Daemon::spawn(command.args(["serve", "--server-admin", "127.0.0.1:0"]).args(flags))
}

/// What it prints at its start.
fn welcome(daemon: &mut Daemon) -> String {
    let mut output = BufReader::new(daemon.child.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("Ctrl-C") {
        assert_ne!(output.read_line(&mut printed).unwrap(), 0, "{printed}");
    }
    printed
}

#[test]
fn a_wrong_proxy_names_file_line_and_key() {
    let valid = "[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n";
    let second = "[[proxy]]\nlisten = [\"unix:/q\"]\nupstream = \"unix:/u\"\n";
    for (text, expected) in [
        (format!("{valid}upstreams = 1\n"), "c.toml:4: proxy.upstreams: unknown field"),
        (format!("{valid}connections_max = \"1\"\n"), "c.toml:4: proxy.connections_max: the text"),
        (format!("{valid}purge_method = true\n"), "c.toml:1: proxy.purge_token_file: missing"),
        (
            format!("{valid}purge_token_file = \"/t\"\n"),
            "c.toml:1: proxy.purge_method: not true: purge_token_file has no effect",
        ),
        (format!("{valid}ttl_status = 3\n"), "c.toml:4: proxy.ttl_status: the number 3"),
        (
            format!("{valid}ttl_status = {{ 404 = \"x\" }}\n"),
            "c.toml:4: proxy.ttl_status.404: \"x\" is not a duration",
        ),
        (
            format!("{valid}ttl_status = {{ ok = \"1s\" }}\n"),
            "c.toml:4: proxy.ttl_status.ok: \"ok\" is not a status",
        ),
        (format!("{valid}set_cookie = \"no\"\n"), "c.toml:4: proxy.set_cookie: \"no\" is not"),
        (format!("{valid}ignore = [\"age\"]\n"), "c.toml:4: proxy.ignore: \"age\" is not known"),
        (
            format!("{valid}ttl_override = \"1s\"\nttl_default = \"1s\"\n"),
            "c.toml:5: proxy.ttl_default: has no effect",
        ),
        (format!("{valid}{second}error_ttl = \"x\"\n"), "c.toml:7: proxy[1].error_ttl: \"x\""),
        (format!("{valid}{second}error_ttl = \"2h\"\n"), "c.toml:7: proxy[1].error_ttl: 2h is"),
        (format!("{valid}{valid}"), "c.toml:5: proxy[1].listen: unix:/p is listed twice"),
        (
            "[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"https://example.org\"\n".to_owned(),
            "c.toml:3: proxy.upstream: \"https://example.org\": there is no TLS",
        ),
        ("\n[[proxy]]\nlisten = [\"unix:/p\"]\n".to_owned(), "c.toml:2: proxy.upstream: missing"),
        (
            "[proxy]\nlisten = []\n".to_owned(),
            "c.toml:1: proxy: a table stands where a list of tables belongs: write [[proxy]]",
        ),
    ] {
        let output = check_config(&format!("{text}{DEVICE}"), &[], &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.starts_with(&format!("rawcached: {expected}")), "{expected} in {message}");
    }
}

#[test]
fn every_setting_of_a_proxy_is_listed() {
    let text = format!(
        "[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n\
         [[proxy]]\nname = \"app\"\nlisten = [\"tcp:127.0.0.1:8081\"]\nupstream = \"{UPSTREAM}\"\n\
         ttl_status = {{ 404 = \"10s\" }}\n{DEVICE}"
    );
    let output = check_config(&text, &[], &["-v"]);
    let settings = stdout(&output);
    let [_, first, second] = settings.split("[[proxy]]\n").collect::<Vec<_>>()[..] else {
        panic!("{settings}")
    };
    for (table, line) in [
        (first, "listen = [\"unix:/p\"]  # c.toml:2"),
        (first, "error_ttl = \"1s\""),
        (second, "name = \"app\"  # c.toml:5"),
        (second, "upstream = \"http://127.0.0.1:8080\"  # c.toml:7"),
        (second, "ttl_status = { 404 = \"10s\" }  # c.toml:8"),
    ] {
        assert!(table.lines().any(|found| found == line), "{line} in\n{table}");
    }
}

#[test]
fn of_a_proxy_from_flags_two_settings_are_said_to_be() {
    let directory = directory();
    let mut command = rawcached(directory.path());
    command.args(["serve", "--check-config", "-v", "--upstream", UPSTREAM]);
    let settings = stdout(&command.output().unwrap());
    let from_flags: Vec<&str> =
        settings.lines().filter(|line| line.ends_with("# flag --upstream")).collect();
    let expected = [
        "listen = [\"unix:rawcached-data/proxy.sock\"]  # flag --upstream",
        "upstream = \"http://127.0.0.1:8080\"  # flag --upstream",
    ];
    assert_eq!(from_flags, expected);
}

#[test]
fn wrong_flags_are_blamed_by_name() {
    let message = |flags: &[&str]| {
        let directory = directory();
        let mut command = rawcached(directory.path());
        let output = command.args(["serve", "--check-config"]).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        stderr(&output)
    };
    for (flags, expected) in [
        (&["--upstream", "https://127.0.0.1"][..], "flag --upstream: proxy.upstream: "),
        (&["--upstream", "http://localhost:80"], "names are not looked up"),
        (&["--upstream", "http://127.0.0.1:80/x"], "something behind the port"),
        (&["--upstream", UPSTREAM, "--listen", "8081"], "flag --listen: proxy.listen: \"8081\""),
        (&["--upstream", UPSTREAM, "--listen", "tcp:0.0.0.0:8081"], "not a loopback address"),
        (&["--listen", "tcp:127.0.0.1:8081"], "--upstream <UPSTREAM>"),
        (
            &["--upstream", UPSTREAM, "--listen", "tcp:127.0.0.1:8080"],
            "flag --upstream: proxy.upstream: http://127.0.0.1:8080 is a listener of this daemon",
        ),
    ] {
        let message = message(flags);
        assert!(message.contains(expected), "{expected} in {message}");
    }
    let upstream = ["--upstream", UPSTREAM];
    let output = check_config(DEVICE, &[], &upstream);
    let expected = "flag --upstream: proxy.listen: with a configuration file, say where to listen";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    let with_listen = ["--upstream", UPSTREAM, "--listen", "unix:p.sock"];
    assert!(check_config(DEVICE, &[], &with_listen).status.success());
    let text = format!("{DEVICE}[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n");
    let output = check_config(&text, &[], &with_listen);
    let expected = "flag --upstream: proxy: c.toml:4 has [[proxy]] tables";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

#[test]
fn an_upstream_without_any_configuration_opens_a_socket_and_says_how_to_ask_it() {
    let directory = directory();
    let mut daemon = start(directory.path(), &["--upstream", UPSTREAM]);
    let line = daemon.wait_for("read-through listener");
    assert!(line.contains(UPSTREAM) && line.contains("unix:rawcached-data/proxy.sock"), "{line}");
    daemon.wait_for("serving");
    let data = directory.path().join("rawcached-data");
    let socket = data.join("proxy.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    UnixStream::connect(&socket).unwrap();
    assert!(data.join("memcached.sock").exists() && data.join("http.sock").exists());
    let printed = welcome(&mut daemon);
    let expected = "curl -i --unix-socket rawcached-data/proxy.sock http://localhost/\n";
    assert!(printed.contains(expected) && printed.contains("Cache-Status"), "{printed}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_port_is_opened_beside_the_socket_and_shown() {
    let directory = directory();
    let flags = ["--upstream", UPSTREAM, "--listen", "tcp:127.0.0.1:0"];
    let mut daemon = start(directory.path(), &flags);
    let line = daemon.wait_for("address=tcp:");
    let address = line.rsplit("tcp:").next().unwrap().trim().to_owned();
    daemon.wait_for("serving");
    TcpStream::connect(&address).unwrap();
    UnixStream::connect(directory.path().join("rawcached-data/proxy.sock")).unwrap();
    let printed = welcome(&mut daemon);
    assert!(printed.contains(&format!("curl -i http://{address}/\n")), "{printed}");
}

#[test]
fn each_table_of_a_file_has_its_sockets() {
    let directory = directory();
    let text = format!(
        "[server]\nmemcached = [\"unix:m.sock\"]\n{DEVICE}\
         [[proxy]]\nlisten = [\"unix:p.sock\", {{ address = \"unix:q.sock\", max_connections = 3 }}]\n\
         upstream = \"unix:up.sock\"\n\
         [[proxy]]\nname = \"second\"\nlisten = [\"unix:r.sock\"]\nupstream = \"{UPSTREAM}\"\n"
    );
    std::fs::write(directory.path().join("c.toml"), &text).unwrap();
    let mut daemon = start(directory.path(), &["-c", "c.toml"]);
    let line = daemon.wait_for("name=\"second\"");
    assert!(line.contains("read-through listener"), "{line}");
    daemon.wait_for("serving");
    for socket in ["p.sock", "q.sock", "r.sock"] {
        UnixStream::connect(directory.path().join(socket)).unwrap();
    }
    let changed = text.replace("unix:up.sock", "unix:other.sock");
    std::fs::write(directory.path().join("c.toml"), changed).unwrap();
    daemon.signal("HUP");
    let line = daemon.wait_for("need a restart");
    assert!(line.contains("proxy.upstream"), "{line}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
}

/// Sends a request and gives the answer: all that comes until the daemon closes.
fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_token_lets_clients_purge_unless_others_can_read_it() {
    let directory = directory();
    let text = format!(
        "[server]\nmemcached = [\"unix:m.sock\"]\n{DEVICE}\
         [[proxy]]\nlisten = [\"unix:p.sock\"]\nupstream = \"{UPSTREAM}\"\n\
         purge_method = true\npurge_token_file = \"token\"\n"
    );
    std::fs::write(directory.path().join("c.toml"), text).unwrap();
    let token = directory.path().join("token");
    for (content, mode, expected) in [
        (None, 0, "No such file"),
        (Some(""), 0o600, "token is empty"),
        (Some("s3cret\n"), 0o644, "others can read or write token (mode 0644)"),
    ] {
        if let Some(content) = content {
            std::fs::write(&token, content).unwrap();
            std::fs::set_permissions(&token, PermissionsExt::from_mode(mode)).unwrap();
        }
        let mut command = rawcached(directory.path());
        let output = command.args(["serve", "-c", "c.toml"]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("proxy.purge_token_file: "), "{message}");
        assert!(message.contains(expected) && !message.contains("s3cret"), "{message}");
    }
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o640)).unwrap();
    let mut daemon = start(directory.path(), &["-c", "c.toml", "-vv"]);
    daemon.wait_for("serving");
    let socket = directory.path().join("p.sock");
    for (credentials, expected) in [("Bearer s3cret", "200 OK"), ("Bearer x", "401 ")] {
        let request = format!(
            "PURGE /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {credentials}\r\n\r\n"
        );
        let answer = ask(&socket, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
    }
    daemon.signal("TERM");
    let log = daemon.rest();
    assert!(!log.contains("s3cret"), "{log}");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn an_access_log_is_private_and_goes_on_in_a_new_file_when_it_was_moved_away() {
    let directory = directory();
    let text = |path: &str| {
        format!(
            "[server]\nmemcached = [\"unix:m.sock\"]\n{DEVICE}[[proxy]]\nname = \"app\"\n\
             listen = [\"unix:p.sock\"]\nupstream = \"unix:none.sock\"\naccess_log = \"{path}\"\n"
        )
    };
    std::fs::write(directory.path().join("c.toml"), text("none/a.log")).unwrap();
    let mut command = rawcached(directory.path());
    let output = command.args(["serve", "-c", "c.toml", "--server-admin", ""]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("cannot open the access log none/a.log"), "{message}");

    std::fs::write(directory.path().join("c.toml"), text("a.log")).unwrap();
    let mut daemon = start(directory.path(), &["-c", "c.toml"]);
    daemon.wait_for("serving");
    let (socket, log) = (directory.path().join("p.sock"), directory.path().join("a.log"));
    let get = |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(ask(&socket, &request).starts_with("HTTP/1.1 502 "));
    };
    let has = |path: &Path, target: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.contains(&format!("\"url\":\"http://h{target}\""))
    };
    get("/one");
    assert!(eventually(|| has(&log, "/one")));
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::rename(&log, directory.path().join("a.log.1")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    get("/two");
    assert!(eventually(|| has(&log, "/two")) && !has(&log, "/one"));
    get("/three");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert!(has(&log, "/three"), "a stop writes what waits");
}

/// Python does what systemd does: see `serve`.
#[test]
fn a_socket_from_the_service_manager_takes_the_place_of_its_tables() {
    let directory = directory();
    let text = format!(
        "[server]\nmemcached = [\"unix:m.sock\"]\n{DEVICE}\
         [[proxy]]\nname = \"app\"\nlisten = [\"unix:p.sock\"]\nupstream = \"{UPSTREAM}\"\n"
    );
    std::fs::write(directory.path().join("c.toml"), text).unwrap();
    let run = |name: &str| {
        let program = format!(
            "import os,socket\n\
             s=socket.socket(socket.AF_UNIX); s.bind('{name}.sock'); s.listen(8)\n\
             os.dup2(s.fileno(),3); os.set_inheritable(3,True)\n\
             os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS='1',LISTEN_FDNAMES='{name}')\n\
             os.execv('{0}',['{0}','serve','-c','c.toml','--server-admin',''])\n",
            binary::path().display()
        );
        let mut python = Command::new("python3");
        python.arg("-c").arg(program).current_dir(directory.path()).stdin(Stdio::null());
        python
    };
    let found = Command::new("python3").arg("--version").output();
    let found = found.map_err(|error| Missing(format!("python3: {error}")));
    if require(found).is_none() {
        return;
    }
    for name in ["proxy-app", "proxy"] {
        let mut daemon = Daemon::spawn(&mut run(name));
        daemon.wait_for("listeners from the service manager");
        daemon.wait_for("serving");
        assert!(!directory.path().join("p.sock").exists());
        UnixStream::connect(directory.path().join(format!("{name}.sock"))).unwrap();
        daemon.signal("TERM");
        assert_eq!(daemon.wait(), Some(0));
    }
    let output = run("proxy-other").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "a socket for \"other\": no [[proxy]] has that name";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}
