//! The proxies and their recipes. All that is not the recipe's own, such as where a process keeps its files,
//! is here.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::machine::{Missing, command};
use crate::support::process::Process;
use crate::support::waiting::eventually;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recipes.md");
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";

/// A client that the recipes deny.
const DENIED: &str = "192.0.2.1";
/// Where that client is here.
pub const DENIED_HERE: [u8; 4] = [127, 0, 0, 2];

/// A proxy that has a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
    Apache,
    Varnish,
}

/// What stands for the sockets and ports of a recipe.
pub struct Places {
    /// For the configuration and the sockets; other users can enter it.
    pub directory: PathBuf,
    pub origin: SocketAddr,
    front: u16,
    back: u16,
}

/// A port that nobody has. The kernel gives none of these to those who do not name one: what has none at
/// this moment is still free when the proxy starts.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Places {
    pub fn new(directory: &Path, origin: SocketAddr) -> Places {
        let (front, back) = (free_port(), free_port());
        Places { directory: directory.to_owned(), origin, front, back }
    }

    /// Where clients of the site connect.
    pub fn front(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.front))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A text of the document with the places of this test.
    fn here(&self, text: &str) -> String {
        let directory = self.directory.display();
        let port = self.origin.port();
        let denied = std::net::Ipv4Addr::from(DENIED_HERE).to_string();
        text.replace("/run/rawcached/proxy.sock", &format!("{directory}/proxy.sock"))
            .replace("/run/site-back.sock", &format!("{directory}/back.sock"))
            .replace("127.0.0.1:8079", &format!("127.0.0.1:{}", self.back))
            .replace("http://:8079", &format!("http://:{}", self.back))
            .replace("127.0.0.1:8080", &self.origin.to_string())
            .replace("\"8080\"", &format!("\"{port}\""))
            .replace(DENIED, &denied)
    }
}

/// The examples under a heading of the document, and those before the first heading.
fn examples(heading: Option<&str>) -> Vec<String> {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let section = match heading {
        Some(heading) => document.split(&format!("\n## {heading}\n")).nth(1).unwrap(),
        None => &document,
    };
    let mut examples = vec![String::new()];
    for line in section.split("\n## ").next().unwrap().lines() {
        match line.strip_prefix("    ") {
            Some(line) => *examples.last_mut().unwrap() += &format!("{line}\n"),
            None => examples.push(String::new()),
        }
    }
    examples.retain(|example| !example.is_empty());
    examples
}

impl Proxy {
    fn heading(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "HAProxy",
            Proxy::Caddy => "Caddy",
            Proxy::Apache => "Apache httpd",
            Proxy::Varnish => "Varnish",
        }
    }

    pub fn is_installed(self) -> Result<String, Missing> {
        match self {
            Proxy::Nginx => command("nginx", &[&"-v"]),
            Proxy::Haproxy => command("haproxy", &[&"-v"]),
            Proxy::Caddy => command("caddy", &[&"version"]),
            Proxy::Apache => command("apache2", &[&"-v"]),
            Proxy::Varnish => command("varnishd", &[&"-V"]),
        }
    }

    /// Where the front listens, as the recipe says it and as it is here.
    fn front(self, port: u16) -> Vec<(&'static str, String)> {
        match self {
            Proxy::Nginx => vec![("listen 80;", format!("listen 127.0.0.1:{port};"))],
            Proxy::Haproxy => vec![("bind :80\n", format!("bind 127.0.0.1:{port}\n"))],
            // Its address is in the frame.
            Proxy::Caddy => vec![("http://:80 ", format!("http://:{port} "))],
            Proxy::Apache => vec![
                ("Listen 80\n", format!("Listen 127.0.0.1:{port}\n")),
                ("*:80>", format!("127.0.0.1:{port}>")),
            ],
            Proxy::Varnish => vec![("-a :80 ", format!("-a 127.0.0.1:{port} "))],
        }
    }

    /// The configuration of the proxy, and what else the recipe has.
    fn recipe(self, places: &Places) -> (String, Option<String>) {
        let mut examples = examples(Some(self.heading())).into_iter().map(|text| {
            let mut text = places.here(&text);
            for (there, here) in self.front(places.front) {
                text = text.replace(there, &here);
            }
            text
        });
        let recipe = (examples.next().unwrap(), examples.next());
        let all = format!("{}{}", recipe.0, recipe.1.as_deref().unwrap_or_default());
        assert!(all.contains(&format!(":{}", places.front)), "{self:?} has another port");
        assert_eq!(examples.next(), None, "{self:?} has one example more");
        recipe
    }

    /// Whether its back is on a port, not on a socket.
    fn has_port_for_back(self) -> bool {
        matches!(self, Proxy::Caddy | Proxy::Apache)
    }

    fn has_back(self, places: &Places) -> bool {
        match self.has_port_for_back() {
            true => TcpStream::connect(("127.0.0.1", places.back)).is_ok(),
            false => UnixStream::connect(places.path("back.sock")).is_ok(),
        }
    }

    /// The lines of `rawcached.toml` for the recipe.
    pub fn daemon(self, places: &Places) -> String {
        let examples = examples(None);
        let unix = "upstream = \"unix:/run/site-back.sock\"";
        let mut text = examples[0].clone();
        assert!(text.contains(unix), "{text}");
        if self.has_port_for_back() {
            let tcp = "upstream = \"http://127.0.0.1:8079\"";
            let document = fs::read_to_string(DOCUMENT).unwrap();
            let section = document.split(&format!("\n## {}\n", self.heading())).nth(1).unwrap();
            assert!(section.split("\n## ").next().unwrap().contains(tcp), "{self:?} has {tcp}");
            text = text.replace(unix, tcp);
        }
        places.here(&text)
    }

    /// Starts it with its recipe.
    pub fn start(self, places: &Places) -> Process {
        let (configuration, more) = self.recipe(places);
        let configured = places.path("proxy.conf");
        fs::write(&configured, self.frame(&configuration)).unwrap();
        let mut command = match self {
            Proxy::Nginx => {
                let mut nginx = Command::new("nginx");
                nginx.args(["-c", "proxy.conf", "-e", "error.log", "-p"]).arg(&places.directory);
                nginx
            }
            Proxy::Haproxy => {
                let mut haproxy = Command::new("haproxy");
                haproxy.args(["-db", "-f"]).arg(&configured);
                haproxy
            }
            Proxy::Caddy => {
                let mut caddy = Command::new("caddy");
                caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(&configured);
                caddy.env("XDG_DATA_HOME", &places.directory);
                caddy.env("XDG_CONFIG_HOME", &places.directory);
                caddy
            }
            Proxy::Apache => {
                let mut apache = Command::new("apache2");
                apache.args(["-X", "-d"]).arg(&places.directory).arg("-f").arg(&configured);
                apache
            }
            Proxy::Varnish => {
                let line = more.unwrap().replace("/etc/varnish/default.vcl", "proxy.conf");
                let mut words = line.split_whitespace();
                let mut varnish = Command::new(words.next().unwrap());
                let vcl = places.directory.join("proxy.conf").display().to_string();
                varnish.args(words.map(|word| if word == "proxy.conf" { &*vcl } else { word }));
                varnish.args(["-F", "-j", "none", "-n"]).arg(places.path("varnish"));
                varnish
            }
        };
        let log = File::create(places.path("proxy.log")).unwrap();
        let out = log.try_clone().unwrap();
        command.current_dir(&places.directory).stdin(Stdio::null()).stdout(out).stderr(log);
        let mut process = Process(command.spawn().unwrap());
        let log = || fs::read_to_string(places.path("proxy.log")).unwrap();
        let answers = eventually(|| {
            let ended = process.0.try_wait().unwrap();
            assert_eq!(ended, None, "{self:?} does not start:\n{}", log());
            TcpStream::connect(places.front()).is_ok() && self.has_back(places)
        });
        assert!(answers, "{self:?} does not start:\n{}", log());
        process
    }

    /// The recipe within what a distribution has around it.
    fn frame(self, recipe: &str) -> String {
        match self {
            Proxy::Nginx => {
                let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {name};\n"))
                    .concat();
                format!(
                    "{user} daemon off; master_process off; pid nginx.pid;\n\
                     events {{}}\nhttp {{ access_log off; gzip on; {temporary}\n{recipe}}}\n"
                )
            }
            Proxy::Caddy => format!("{{\nadmin off\ndefault_bind 127.0.0.1\n}}\n{recipe}"),
            Proxy::Apache => {
                let modules = [
                    "mpm_event",
                    "authz_core",
                    "authz_host",
                    "headers",
                    "proxy",
                    "proxy_http",
                    "slotmem_shm",
                    "proxy_balancer",
                    "lbmethod_byrequests",
                ]
                .map(|name| format!("LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n"))
                .concat();
                format!(
                    "ServerName localhost\nPidFile apache.pid\nErrorLog error.log\n\
                     DefaultRuntimeDir .\nUser www-data\nGroup www-data\n{modules}{recipe}"
                )
            }
            Proxy::Haproxy | Proxy::Varnish => recipe.to_owned(),
        }
    }
}
