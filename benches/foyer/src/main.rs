//! Serves `get` and `set` of the classic memcached protocol over foyer's hybrid cache, so that one
//! load tool can drive foyer and rawcached in the same way. For measurements only: it trusts its
//! client. README.md says how foyer is set up and why.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use clap::{Parser, ValueEnum};
use foyer::{
    BlockEngineConfig, DeviceBuilder as _, FileDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, IoEngineConfig, PsyncIoEngineConfig, RecoverMode, UringIoEngineConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// With the settings that rawcached has (`.cargo/config.toml`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest command line in bytes.
const LINE_LEN_MAX: usize = 8192;
/// Largest value in bytes: it must fit a block.
const VALUE_LEN_MAX: usize = 8 << 20;
/// Bytes that clients stored as flags, in front of each value.
const FLAGS_LEN: usize = 4;

type Cache = HybridCache<Vec<u8>, Bytes>;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    /// pread and pwrite on threads
    Psync,
    /// A thread with an io_uring of its own
    Uring,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WriteWhen {
    /// Every value is written when it is stored
    Insertion,
    /// A value is written when it leaves memory
    Eviction,
}

/// foyer's hybrid cache behind a Unix socket.
#[derive(Debug, Parser)]
struct Arguments {
    /// Image file or block device; what is on it is lost
    #[arg(long)]
    device: PathBuf,
    /// Bytes to use of it
    #[arg(long)]
    size_mib: usize,
    /// Bytes of keys and values in memory
    #[arg(long, default_value_t = 256)]
    ram_mib: usize,
    /// Where to listen
    #[arg(long)]
    socket: PathBuf,
    /// What moves the bytes
    #[arg(long, value_enum, default_value = "psync")]
    engine: Engine,
    /// When values are written to the device
    #[arg(long, value_enum, default_value = "insertion")]
    write: WriteWhen,
    /// Threads that serve connections
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tasks that write to the device
    #[arg(long, default_value_t = 2)]
    flushers: usize,
    /// Memory of the flushers together
    #[arg(long, default_value_t = 128)]
    buffer_mib: usize,
    /// Values that may wait to be written; beyond it foyer drops them
    #[arg(long, default_value_t = 1024)]
    queue_mib: usize,
    /// Size of a block, the unit of eviction
    #[arg(long, default_value_t = 16)]
    block_mib: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut builder = match arguments.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(arguments.threads).enable_all().build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let cache = open(&arguments).await?;
    match std::fs::remove_file(&arguments.socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(&arguments.socket)
        .with_context(|| format!("cannot listen on {}", arguments.socket.display()))?;
    eprintln!("listening on {}", arguments.socket.display());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = Connection::new(stream, cache.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.run().await {
                eprintln!("connection: {error:#}");
            }
        });
    }
}

async fn open(arguments: &Arguments) -> anyhow::Result<Cache> {
    let device = FileDeviceBuilder::new(&arguments.device)
        .with_capacity(arguments.size_mib << 20)
        .with_direct(true)
        .build()?;
    // Admits everything, re-inserts nothing, compresses nothing: foyer's defaults.
    let engine = BlockEngineConfig::new(device)
        .with_block_size(arguments.block_mib << 20)
        .with_flushers(arguments.flushers)
        .with_reclaimers(arguments.flushers)
        // Blocks are clean before the flushers need them.
        .with_clean_block_threshold(arguments.flushers * 4)
        .with_buffer_pool_size(arguments.buffer_mib << 20)
        .with_submit_queue_size_threshold(arguments.queue_mib << 20);
    let policy = match arguments.write {
        WriteWhen::Insertion => HybridCachePolicy::WriteOnInsertion,
        WriteWhen::Eviction => HybridCachePolicy::WriteOnEviction,
    };
    let io: Box<dyn IoEngineConfig> = match arguments.engine {
        Engine::Psync => PsyncIoEngineConfig::new().boxed(),
        Engine::Uring => UringIoEngineConfig::new().boxed(),
    };
    let cache = HybridCacheBuilder::new()
        .with_policy(policy)
        .with_flush_on_close(false)
        .memory(arguments.ram_mib << 20)
        .with_weighter(|key: &Vec<u8>, value: &Bytes| key.len() + value.len())
        .storage()
        .with_engine_config(engine)
        .with_io_engine_config(io)
        .with_recover_mode(RecoverMode::None)
        .build()
        .await?;
    Ok(cache)
}

/// One client's connection.
struct Connection {
    stream: UnixStream,
    cache: Arc<Cache>,
    input: BytesMut,
    /// Answers not yet sent.
    output: BytesMut,
}

impl Connection {
    fn new(stream: UnixStream, cache: Cache) -> Connection {
        let (input, output) = (BytesMut::with_capacity(64 << 10), BytesMut::new());
        Connection { stream, cache: Arc::new(cache), input, output }
    }

    async fn run(mut self) -> anyhow::Result<()> {
        while let Some(line) = self.line().await? {
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            match words[..] {
                [b"get", ref keys @ ..] => self.get(keys).await?,
                [b"set", key, flags, _, len] => self.set((key, flags, len), true).await?,
                [b"set", key, flags, _, len, b"noreply"] => {
                    self.set((key, flags, len), false).await?;
                }
                [b"version"] => self.output.extend_from_slice(b"VERSION foyer 0.22\r\n"),
                [b"quit"] => return Ok(()),
                _ => self.output.extend_from_slice(b"ERROR\r\n"),
            }
        }
        Ok(())
    }

    /// The next command without its end; `None` when the client has left. Answers are sent before
    /// more input is waited for.
    async fn line(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = self.input.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..line.trim_ascii_end().len())));
            }
            if self.input.len() > LINE_LEN_MAX {
                bail!("the command is too long");
            }
            self.stream.write_all_buf(&mut self.output).await?;
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn get(&mut self, keys: &[&[u8]]) -> anyhow::Result<()> {
        for key in keys {
            let Some(entry) = self.cache.get(&key.to_vec()).await? else { continue };
            let (flags, body) = entry.value().split_at(FLAGS_LEN);
            let flags = u32::from_le_bytes(flags.try_into()?);
            self.output.extend_from_slice(b"VALUE ");
            self.output.extend_from_slice(key);
            self.output.extend_from_slice(format!(" {flags} {}\r\n", body.len()).as_bytes());
            let head = self.output.split();
            self.output.extend_from_slice(b"\r\n");
            if keys.len() == 1 {
                self.output.extend_from_slice(b"END\r\n");
            }
            // Head, body and end leave in one system call; the body is not copied before.
            let tail = self.output.split();
            self.stream.write_all_buf(&mut head.chain(body).chain(tail)).await?;
            if keys.len() == 1 {
                return Ok(());
            }
        }
        self.output.extend_from_slice(b"END\r\n");
        Ok(())
    }

    async fn set(&mut self, parts: (&[u8], &[u8], &[u8]), reply: bool) -> anyhow::Result<()> {
        let (key, flags, len) = parts;
        let flags: u32 = std::str::from_utf8(flags)?.parse()?;
        let len: usize = std::str::from_utf8(len)?.parse()?;
        if len > VALUE_LEN_MAX {
            bail!("the value is too long");
        }
        let mut value = BytesMut::with_capacity(FLAGS_LEN + len + 2);
        value.extend_from_slice(&flags.to_le_bytes());
        let known = self.input.len().min(len + 2);
        value.extend_from_slice(&self.input.split_to(known));
        if known < len + 2 {
            // A client may wait for earlier answers before it sends the rest.
            self.stream.write_all_buf(&mut self.output).await?;
            let mut rest = (&mut self.stream).take((len + 2 - known) as u64);
            while rest.limit() > 0 {
                if rest.read_buf(&mut value).await? == 0 {
                    bail!("the client left within a value");
                }
            }
        }
        if !value.ends_with(b"\r\n") {
            bail!("a value does not end where it should");
        }
        value.truncate(FLAGS_LEN + len);
        self.cache.insert(key.to_vec(), value.freeze());
        if reply {
            self.output.extend_from_slice(b"STORED\r\n");
        }
        Ok(())
    }
}
