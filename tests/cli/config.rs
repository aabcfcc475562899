//! Goal: the shipped configuration is complete and true. Method: compare `config/rawcached.toml`
//! with the defaults and the list of settings, and let the binary judge it.

use std::path::{Path, PathBuf};

use rawcached::config::{Config, KEYS, PROXY_KEYS, ProxyConfig, Sources};

use crate::support::machine::{command, require};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rawcached.toml")
}

fn load(path: PathBuf) -> Config {
    let mut sources = Sources::default();
    sources.set_file(path);
    sources.load().unwrap()
}

#[test]
fn the_shipped_file_has_the_defaults() {
    let shipped = load(shipped());
    let defaults = Config::default().entries();
    for ((key, shipped), (_, default)) in shipped.entries().into_iter().zip(defaults) {
        if key.path() != "device.path" {
            assert_eq!(shipped, default, "{}", key.path());
        }
    }
}

#[test]
fn the_shipped_file_has_every_setting_with_a_comment() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let mut section = "";
    let mut above = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(above.starts_with('#'), "{section}.{name} has no comment");
            found.push(format!("{section}.{name}"));
        }
        above = line;
    }
    let expected: Vec<String> = KEYS.iter().map(|key| key.path()).collect();
    assert_eq!(found, expected);
}

/// A `[[proxy]]` is there with a `#` before each of its lines: prose has a space behind it.
#[test]
fn the_shipped_file_has_a_proxy_to_be_uncommented_with_every_setting_and_the_defaults() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let is_setting = |line: &str| line.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    let (mut above, mut found, mut uncommented) = ("", Vec::new(), String::new());
    for line in text.lines() {
        let setting = line.strip_prefix('#').filter(|rest| is_setting(rest));
        if let Some((name, _)) = setting.and_then(|setting| setting.split_once(" = ")) {
            assert!(above.starts_with("# "), "{name} has no comment");
            found.push(name.to_owned());
        }
        uncommented += &format!("{}\n", setting.unwrap_or(line));
        above = line;
    }
    assert_eq!(found, PROXY_KEYS);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(&path, &uncommented).unwrap();
    let shipped = load(path);
    let [proxy] = &shipped.proxies[..] else { panic!("{}", shipped.proxies.len()) };
    let defaults = ProxyConfig::default().entries();
    for ((name, shipped), (_, default)) in proxy.entries().into_iter().zip(defaults) {
        if !["listen", "upstream"].contains(&name) {
            assert_eq!(shipped, default, "{name}");
        }
    }
    let words = ["never", "strip", "store", "ignore", "honor", "cache-control", "expires", "vary"];
    for word in words.into_iter().chain(["refuse", "tunnel"]) {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}

#[test]
fn the_shipped_units_and_the_configuration_agree_on_the_file_and_socket() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let service = std::fs::read_to_string(root.join("systemd/rawcached.service")).unwrap();
    assert!(service.contains("serve --config /etc/rawcached/rawcached.toml\n"));
    assert!(service.contains("RuntimeDirectory=rawcached\n"));
    // Otherwise the daemon could not learn whether the wall clock is synchronised.
    assert!(service.contains("SystemCallFilter=adjtimex clock_adjtime\n"));
    assert!(!service.contains("\nProtectClock=yes"));
    let config = load(shipped());
    let sockets = [
        ("rawcached.socket", "memcached", config.server.memcached[0].to_string()),
        ("rawcached-http.socket", "http", "unix:/run/rawcached/http.sock".to_owned()),
        ("rawcached-proxy.socket", "proxy", "unix:/run/rawcached/proxy.sock".to_owned()),
        ("rawcached-admin.socket", "admin", config.server.admin.unwrap().to_string()),
    ];
    for (file, name, address) in sockets {
        let socket = std::fs::read_to_string(root.join("systemd").join(file)).unwrap();
        let address = address.strip_prefix("unix:").unwrap_or(&address);
        assert!(socket.contains(&format!("ListenStream={address}\n")), "{file}: {address}");
        assert!(socket.contains(&format!("FileDescriptorName={name}\n")), "{file}");
        // Without this it would be for a service of its own name.
        let is_for_the_service = socket.contains("Service=rawcached.service\n");
        assert!(is_for_the_service || file == "rawcached.socket", "{file}");
    }
}

/// Settings of a unit, without its comments.
fn settings_of(unit: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_unit_for_several_caches_differs_in_its_places_only() {
    let replaced = |line: &String| match line.as_str() {
        "RuntimeDirectory=rawcached" | "StateDirectory=rawcached" | "LogsDirectory=rawcached" => {
            format!("{line}/%i")
        }
        line if line.starts_with("Description=") => format!("{line}, %i"),
        line => line.replace("/etc/rawcached/rawcached.toml", "/etc/rawcached/%i.toml"),
    };
    let expected: Vec<String> = settings_of("rawcached.service").iter().map(replaced).collect();
    assert_eq!(settings_of("rawcached@.service"), expected);
}

#[test]
fn user_directory_and_rule_are_those_of_the_unit() {
    let service = settings_of("rawcached.service");
    for line in ["User=rawcached", "Group=rawcached", "RuntimeDirectoryMode=0755"] {
        assert!(service.iter().any(|found| found == line), "{line}");
    }
    let [user] = &settings_of("rawcached.sysusers.conf")[..] else { panic!("one user") };
    assert!(user.starts_with("u rawcached - ") && user.contains(" /var/lib/rawcached "), "{user}");
    let directory = settings_of("rawcached.tmpfiles.conf");
    assert_eq!(directory, ["d /run/rawcached 0755 rawcached rawcached -"]);
    let [rule] = &settings_of("60-rawcached.rules")[..] else { panic!("one rule") };
    assert!(documented("operating.md").contains(rule), "{rule}");
}

fn documented(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// A disk that appears late must not make systemd give up.
#[test]
fn the_shipped_units_are_understood_and_start_again_for_ever() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let service = std::fs::read_to_string(root.join("systemd/rawcached.service")).unwrap();
    let setting = |name: &str| {
        let line = service.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!((setting("StartLimitIntervalSec"), setting("Restart")), ("0", "on-failure"));
    if require(command("systemd-analyze", &[&"--version"])).is_none() {
        return;
    }
    // What the unit runs has to exist where it is verified; a template is verified as one of its units.
    let directory = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in root.join("systemd").read_dir().unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_some_and(|kind| kind == "service" || kind == "socket") {
            let text = std::fs::read_to_string(&source).unwrap();
            let name = source.file_name().unwrap().to_str().unwrap().replace("@.", "@one.");
            units.push(directory.path().join(name));
            let text = text.replace("/usr/bin/rawcached", "/bin/true");
            std::fs::write(units.last().unwrap(), text).unwrap();
        }
    }
    assert_eq!(units.len(), 6, "{units:?}");
    let verified = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&units)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr);
    // Of other units of this machine nothing is claimed.
    let own: Vec<_> = complaints.lines().filter(|line| line.contains("rawcached")).collect();
    assert!(own.is_empty(), "{own:#?}");
}
