//! What `serve` without any configuration prints: commands that can be pasted.

use std::io::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::log_queue::LogQueue;
use crate::config::{Config, ListenAddress};

/// How long the commands wait for the log to be written.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// Prints the commands to standard output once what is in `log` is written, from a thread of its own:
/// perhaps nobody reads them.
pub fn print(config: &Config, proxies: &[ListenAddress], admin: Option<SocketAddr>, log: LogQueue) {
    let program = std::env::args().next().unwrap_or_else(|| "rawcached".to_owned());
    let text = text(&program, config, proxies, admin);
    let print = move || {
        log.flush(LOG_LIMIT);
        let mut output = std::io::stdout().lock();
        output.write_all(text.as_bytes()).and_then(|()| output.flush())
    };
    // Errors are ignored: the daemon serves even without this.
    let _ = thread::Builder::new().name("welcome".to_owned()).spawn(print);
}

fn text(
    program: &str,
    config: &Config,
    proxies: &[ListenAddress],
    admin: Option<SocketAddr>,
) -> String {
    let device = config.device();
    let mut text = format!(
        "rawcached serves {} without a configuration file. In another terminal, here:\n\n",
        device.path.display()
    );
    if let Some(ListenAddress::Unix(path)) = config.server.http.first().map(|it| &it.address) {
        let socket = path.display();
        text += &format!(
            "  store   echo hello | {program} put greeting --ttl 10m --socket {socket}\n  \
               read    {program} get greeting --socket {socket}\n  \
               purge   {program} purge greeting --socket {socket}\n"
        );
    }
    if let Some(ListenAddress::Unix(path)) = config.server.memcached.first().map(|it| &it.address) {
        text += &format!("  stats   {program} stats --socket {}\n", path.display());
    }
    // The shortest command that reaches it.
    let is_port = |address: &&ListenAddress| matches!(address, ListenAddress::Tcp(_));
    if let Some(address) = proxies.iter().find(is_port).or(proxies.first()) {
        let target = match address {
            ListenAddress::Unix(path) => {
                format!("--unix-socket {} http://localhost/", path.display())
            }
            ListenAddress::Tcp(address) => format!("http://{address}/"),
        };
        text += &format!(
            "  proxy   curl -i {target}\n          twice: Cache-Status tells of a miss, then of a hit \
             if it may be stored\n"
        );
    }
    if let Some(admin) = admin {
        text += &format!(
            "  metrics curl -s http://{admin}/metrics\n  ready   curl -s http://{admin}/readyz\n"
        );
    }
    text += "\nCtrl-C stops it; what is stored is kept.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_commands_name_the_socket_and_the_admin_address() {
        let config = Sources::default().load().unwrap();
        let text = text("./rawcached", &config, &[], config.server.admin);
        for line in [
            "echo hello | ./rawcached put greeting --ttl 10m --socket rawcached-data/http.sock",
            "./rawcached get greeting --socket rawcached-data/http.sock",
            "curl -s http://127.0.0.1:9180/metrics",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("proxy"), "{text}");
    }

    #[test]
    fn a_proxy_is_shown_by_its_port_or_its_socket() {
        let config = Sources::default().load().unwrap();
        let socket: ListenAddress = "unix:rawcached-data/proxy.sock".parse().unwrap();
        let port: ListenAddress = "tcp:127.0.0.1:8081".parse().unwrap();
        let by_socket = "curl -i --unix-socket rawcached-data/proxy.sock http://localhost/\n";
        for (proxies, line) in [
            (vec![socket.clone()], by_socket),
            (vec![socket, port], "curl -i http://127.0.0.1:8081/\n"),
        ] {
            let text = text("./rawcached", &config, &proxies, None);
            assert!(text.contains(line) && text.contains("Cache-Status"), "{line} in\n{text}");
        }
    }
}
