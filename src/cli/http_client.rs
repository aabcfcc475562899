//! A client of the daemon's HTTP socket. Owns requests and what their answers mean; hyper has the
//! bytes on the wire. Bodies stream: memory does not grow with them.

use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::socket;
use crate::cache::KEY_LEN_MAX;
use crate::config::{EMBEDDED_HTTP_SOCKET, ListenAddress, SERVICE_HTTP_SOCKET};

/// Longest wait for the daemon to send the next bytes of an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes read from the input at once, and how many such pieces wait to be sent.
const PIECE_LEN: usize = 128 << 10;
const PIECES_MAX: usize = 4;
/// Bytes of an error's text that are shown.
const TEXT_LEN_MAX: usize = 1000;

/// Bytes to escape in a path: all but letters, digits and these.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

type Upload =
    Either<Full<Bytes>, StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, io::Error>>>>;

/// A request for an object.
pub struct Ask<'a> {
    pub method: Method,
    pub key: &'a str,
    pub headers: HeaderMap,
}

/// Sends a request without a body, and writes the body of the answer to `output`; false if the
/// object is not there. `progress` gets the length once, then the number of bytes of each piece.
pub fn fetch(
    socket: Option<&str>,
    ask: Ask<'_>,
    output: &mut dyn Write,
    progress: &dyn Fn(Progress),
) -> anyhow::Result<bool> {
    runtime()?.block_on(async {
        let answer = send(socket, of_object(ask, Either::Left(Full::default()))?).await?;
        let Some(answer) = found(answer).await? else { return Ok(false) };
        copy(answer.into_body(), output, progress).await?;
        Ok(true)
    })
}

/// Stores `input` up to its end.
pub fn store(
    socket: Option<&str>,
    ask: Ask<'_>,
    input: impl Read + Send + 'static,
    progress: impl Fn(Progress) + Send + 'static,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let request = of_object(ask, Either::Right(upload(input, progress)))?;
        let answer = found(send(socket, request).await?).await?;
        answer.map(drop).context("not stored: nothing is at the socket's /v1/objects/")
    })
}

/// Purges what `selection` says, in the form of `/v1/purge`.
pub fn purge(socket: Option<&str>, selection: &Value) -> anyhow::Result<()> {
    let mut request = Request::new(Either::Left(Full::from(selection.to_string())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/v1/purge");
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    runtime()?.block_on(async {
        let answer = found(send(socket, request).await?).await?;
        answer.map(drop).context("not purged: nothing is at the socket's /v1/purge")
    })
}

/// How far a transfer is.
pub enum Progress {
    /// So many bytes will come.
    Length(u64),
    /// So many bytes more have passed.
    Passed(u64),
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// The request that `ask` comes to.
fn of_object(ask: Ask<'_>, body: Upload) -> anyhow::Result<Request<Upload>> {
    let len = ask.key.len();
    ensure!(
        (1..=KEY_LEN_MAX).contains(&len),
        "the key has {len} bytes; it must have 1 to {KEY_LEN_MAX}"
    );
    let key = percent_encode(ask.key.as_bytes(), ESCAPED);
    let mut request = Request::new(body);
    *request.method_mut() = ask.method;
    *request.uri_mut() = format!("/v1/objects/{key}").parse().context("the key")?;
    *request.headers_mut() = ask.headers;
    Ok(request)
}

async fn send(
    socket: Option<&str>,
    mut request: Request<Upload>,
) -> anyhow::Result<Response<Incoming>> {
    let address = socket::address(socket, [EMBEDDED_HTTP_SOCKET, SERVICE_HTTP_SOCKET])
        .context("the daemon's HTTP socket (server.http of its configuration)")?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("rawcached"));
    let refused = |error| socket::refused(&address, "HTTP socket", error);
    let answer = match &address {
        ListenAddress::Unix(path) => {
            exchange(UnixStream::connect(path).await.map_err(refused)?, request).await
        }
        ListenAddress::Tcp(at) => {
            exchange(TcpStream::connect(at).await.map_err(refused)?, request).await
        }
    };
    answer.map_err(|error| {
        let message = match error.is_user() {
            true => "the input cannot be sent".to_owned(),
            // A listener of the memcached protocol closes the connection.
            false => format!(
                "{address} gives no answer in HTTP; if it is a socket of server.memcached, name one of \
                 server.http with --socket"
            ),
        };
        anyhow::Error::from(error).context(message)
    })
}

async fn exchange<S>(stream: S, request: Request<Upload>) -> hyper::Result<Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // No time limit: a slow input delays the answer.
    sender.send_request(request).await
}

/// The answer, or `None` for a 404; anything else that is not 2xx is an error with its text.
async fn found(answer: Response<Incoming>) -> anyhow::Result<Option<Response<Incoming>>> {
    match answer.status() {
        status if status.is_success() => Ok(Some(answer)),
        StatusCode::NOT_FOUND => Ok(None),
        status => {
            let mut text = Vec::new();
            // Without a text the error shows the status alone.
            let _ = copy(answer.into_body(), &mut text, &|_| {}).await;
            text.truncate(TEXT_LEN_MAX);
            bail!("the daemon answered {status}: {}", String::from_utf8_lossy(&text).trim_end())
        }
    }
}

async fn copy(
    mut body: Incoming,
    output: &mut dyn Write,
    progress: &dyn Fn(Progress),
) -> anyhow::Result<()> {
    let announced = body.size_hint().exact();
    if let Some(len) = announced {
        progress(Progress::Length(len));
    }
    let mut copied = 0;
    loop {
        let frame = tokio::time::timeout(TIMEOUT, body.frame()).await;
        let cut = || format!("the daemon ended the object after {copied} bytes");
        let Some(frame) = frame.with_context(cut)? else { break };
        let Ok(data) = frame.with_context(cut)?.into_data() else { continue };
        output.write_all(&data).map_err(super::output::closed_or_failed)?;
        copied += data.len() as u64;
        progress(Progress::Passed(data.len() as u64));
    }
    output.flush().map_err(super::output::closed_or_failed)
}

/// A body that a thread reads from `input`, since standard input may block.
fn upload(
    mut input: impl Read + Send + 'static,
    progress: impl Fn(Progress) + Send + 'static,
) -> StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, io::Error>>> {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_LEN];
            let read = match input.read(&mut piece) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read,
            };
            let passed = read.as_ref().map_or(0, |len| *len as u64);
            let is_last = read.is_err();
            let piece = read.map(|len| {
                piece.truncate(len);
                Frame::data(Bytes::from(piece))
            });
            if sender.blocking_send(piece).is_err() || is_last {
                return;
            }
            progress(Progress::Passed(passed));
        }
    });
    let pieces = stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    StreamBody::new(Box::pin(pieces))
}

/// Reads `Name: value`.
///
/// # Errors
/// It has no colon, or a character that headers cannot have.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is no value of a header"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_so_that_the_daemon_reads_them_back() {
        let of = |key: &str| percent_encode(key.as_bytes(), ESCAPED).to_string();
        assert_eq!(of("/a/b-c._~1"), "/a/b-c._~1");
        assert_eq!(of("a b?c=%d#é"), "a%20b%3Fc%3D%25d%23%C3%A9");
    }

    #[test]
    fn headers_are_read_as_people_write_them() {
        let (name, value) = parse_header("If-None-Match:  \"a:b\" ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("if-none-match", &b"\"a:b\""[..]));
        for text in ["", "name", "a b: c", "a: b\nc"] {
            assert!(parse_header(text).is_err(), "{text:?}");
        }
    }
}
