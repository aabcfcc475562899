//! Goal: the admin listener answers health and metrics, and nothing a client does stops it.
//! Method: HTTP bytes over real loopback connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rawcached::metrics::Metrics;
use rawcached::server::admin::{Admin, CONNECTIONS_MAX, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::http::Connection;
use crate::support::waiting::ANSWER_PATIENCE;

struct Running {
    address: std::net::SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ready = Arc::new(AtomicBool::new(true));
    let metrics = Metrics::new();
    metrics.add(|page| page.counter("rawcached_demo_total", "Demo.", &[], 5)).unwrap();
    let flag = Arc::clone(&ready);
    let admin = Admin::new(metrics, move || {
        if flag.load(Ordering::Relaxed) {
            Readiness::Ready
        } else {
            Readiness::NotReady("recovery is running".to_owned())
        }
    });
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(admin.serve(listener, async {
        let _ = stopped.await;
    }));
    Running { address, ready, stop, task }
}

/// Sends `request` and reads until the server closes. The server runs on the thread of the test.
async fn exchange(running: &Running, request: &str) -> String {
    let (address, request) = (running.address, request.to_owned());
    let exchange = move || Connection::open_tcp(address).unwrap().ask_last(request);
    let exchange = tokio::task::spawn_blocking(exchange);
    let (head, body) = tokio::time::timeout(ANSWER_PATIENCE, exchange).await.unwrap().unwrap();
    head + &String::from_utf8(body).unwrap()
}

async fn get(running: &Running, path: &str) -> String {
    let host = running.address;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(running, &head).await
}

#[tokio::test]
async fn metrics_have_the_prometheus_content_type() {
    let running = start().await;
    let response = get(&running, "/metrics").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{response}");
    assert!(response.ends_with("rawcached_demo_total 5\n"), "{response}");
}

#[tokio::test]
async fn alive_and_ready_are_told_apart() {
    let running = start().await;
    assert!(get(&running, "/readyz").await.starts_with("HTTP/1.1 200 "));
    running.ready.store(false, Ordering::Relaxed);
    let response = get(&running, "/readyz").await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.ends_with("\r\n\r\nrecovery is running\n"), "{response}");
    assert!(get(&running, "/healthz").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn head_has_the_length_but_no_body() {
    let running = start().await;
    let host = running.address;
    let request = format!("HEAD /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let response = exchange(&running, &request).await;
    assert!(response.contains("content-length: 6\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn anything_else_is_refused() {
    let running = start().await;
    assert!(get(&running, "/").await.contains("<a href=\"/metrics\">"));
    assert!(get(&running, "/nothing").await.starts_with("HTTP/1.1 404 "));
    for method in ["POST", "PUT", "DELETE", "PURGE"] {
        let host = format!("Host: {}\r\nConnection: close\r\n", running.address);
        let request = format!("{method} /metrics HTTP/1.1\r\n{host}\r\n");
        let response = exchange(&running, &request).await;
        assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
        assert!(response.contains("allow: GET, HEAD\r\n"), "{response}");
    }
}

#[tokio::test]
async fn garbage_and_oversized_heads_are_answered_and_closed() {
    let running = start().await;
    assert!(exchange(&running, "\0\0\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(15 << 10));
    let many = "a: b\r\n".repeat(2000);
    let response = exchange(&running, &format!("{long}{many}")).await;
    assert!(response.starts_with("HTTP/1.1 4"), "{response}");
    assert!(get(&running, "/healthz").await.starts_with("HTTP/1.1 200 "));
}

/// More clients than there is room for, which send nothing, send half a request, or never read.
#[tokio::test]
async fn clients_that_stand_still_make_room_for_others() {
    let running = start().await;
    let metrics = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
    let requests = metrics.repeat(2000);
    for opening in ["", "GET /met", &requests] {
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // It takes no more once it waits for its answers to be read.
            let write = stream.write_all(opening.as_bytes());
            let _ = tokio::time::timeout(Duration::from_millis(20), write).await;
            silent.push(stream);
        }
        let asked = tokio::time::Instant::now();
        assert!(get(&running, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}

/// They connected and asked before the first was accepted.
#[tokio::test]
async fn more_clients_at_once_than_there_is_room_for_are_all_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    let admin = Admin::new(Metrics::new(), || Readiness::Ready);
    let served = tokio::spawn(admin.serve(listener, std::future::pending()));
    for (n, mut stream) in clients.into_iter().enumerate() {
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "client {n}: {read:?} {answer}");
    }
    served.abort();
}

/// A page of another site, whose name resolves to 127.0.0.1 by now, sends its own name.
#[tokio::test]
async fn requests_that_name_another_host_are_refused() {
    let running = start().await;
    let port = running.address.port();
    let last = "Connection: close\r\n\r\n";
    let ask = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\n{host}{last}");
    for host in [
        format!("Host: attacker.example:{port}\r\n"),
        "Host: 127.0.0.1:1\r\n".to_owned(),
        "Host: \r\n".to_owned(),
        String::new(),
        format!("Host: 127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}\r\n"),
    ] {
        for path in ["/metrics", "/healthz", "/"] {
            let response = exchange(&running, &ask(path, &host)).await;
            assert!(response.starts_with("HTTP/1.1 421 "), "{host}{response}");
        }
    }
    let absolute = format!("http://attacker.example:{port}/metrics");
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    let response = exchange(&running, &ask(&absolute, &host)).await;
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    for host in [format!("Host: LOCALHOST:{port}\r\n"), format!("Host: [::1]:{port}\r\n")] {
        let response = exchange(&running, &ask("/metrics", &host)).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{host}{response}");
    }
    let response = exchange(&running, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.0 200 "), "{response}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections() {
    let running = start().await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut start_of_answer = [0; 12];
    idle.read_exact(&mut start_of_answer).await.unwrap();
    running.stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.task).await;
    ended.expect("shutdown takes at most a second").unwrap().unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn an_address_that_other_hosts_reach_is_refused() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let admin = Admin::new(Metrics::new(), || Readiness::Ready);
    let error = admin.serve(listener, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("not a loopback address"), "{error}");
}
