//! The signals that the daemon answers to.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain and stop.
    Terminate,
    /// SIGINT: drain and stop.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Interrupt => "SIGINT",
            Signal::Reload => "SIGHUP",
        })
    }
}

/// Handlers for the signals; they stay installed until the process ends.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Installs the handlers.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// Waits for a signal that stops the daemon.
    pub async fn stop(&mut self) -> Signal {
        loop {
            match self.next().await {
                Signal::Reload => {}
                stop => return stop,
            }
        }
    }
}
