//! Messages to the service manager. A thread of its own sends them, since the manager's socket may
//! take none for a while.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// Messages that wait; further ones are dropped, and the next ones say what holds then.
const QUEUE_LEN: usize = 64;
/// How long the end of the daemon waits for its last message to be taken.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// Sends messages to the service manager, if there is one.
pub struct Notifier {
    queue: Option<SyncSender<String>>,
    ended: mpsc::Receiver<()>,
}

impl Notifier {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Notifier> {
        Notifier::with(|message| {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(message)]) {
                tracing::warn!(%error, "the service manager cannot be reached");
            }
        })
    }

    fn with(send: impl Fn(&str) + Send + 'static) -> io::Result<Notifier> {
        let (queue, messages) = mpsc::sync_channel::<String>(QUEUE_LEN);
        let (ends, ended) = mpsc::channel::<()>();
        thread::Builder::new().name("notify".to_owned()).spawn(move || {
            // Dropped at the end, which tells that everything is sent.
            let _ends = ends;
            for message in messages {
                send(&message);
            }
        })?;
        Ok(Notifier { queue: Some(queue), ended })
    }

    /// Sends one message; never waits.
    pub fn send(&self, state: &[NotifyState<'_>]) {
        let lines: Vec<String> = state.iter().map(ToString::to_string).collect();
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(message)) = queue.try_send(lines.join("\n")) {
            tracing::warn!(message, "the service manager takes no messages");
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.queue = None;
        if self.ended.recv_timeout(FLUSH_LIMIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the service manager did not take the last messages");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_takes_nothing_holds_nobody_up() {
        let (taken, messages) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let notifier = Notifier::with(move |message| {
            let _ = gate.recv();
            taken.send(message.to_owned()).unwrap();
        });
        let notifier = notifier.unwrap();
        for _ in 0..2 * QUEUE_LEN {
            notifier.send(&[NotifyState::Ready, NotifyState::Status("serving")]);
        }
        drop(open);
        assert_eq!(messages.recv().unwrap(), "READY=1\nSTATUS=serving");
        drop(notifier);
        let count = messages.into_iter().count();
        assert!((QUEUE_LEN - 1..=QUEUE_LEN).contains(&count), "{count}");
    }
}
