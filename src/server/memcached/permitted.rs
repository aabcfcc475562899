//! Which commands a listener refuses. A refused command changes nothing, not even what a `set` that
//! fails would take with it.

use super::command::Command;
use crate::server::access::Access;

const READ_ONLY: &str = "CLIENT_ERROR this listener is read-only";
/// As memcached answers with `-F`.
const NO_FLUSH: &str = "CLIENT_ERROR flush_all not allowed";

/// A refused command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reply: &'static str,
    pub(super) noreply: bool,
    /// Length of a value that follows the line, without its line end.
    pub(super) body_len: Option<u64>,
}

/// The refusal of `command` where it is not permitted.
pub(super) fn refusal(command: &Command<'_>, access: Access) -> Option<Refused> {
    let refused = |reply, noreply| Some(Refused { reply, noreply, body_len: None });
    match *command {
        Command::FlushAll { noreply, .. } if !access.flush_all => refused(NO_FLUSH, noreply),
        _ if !access.read_only => None,
        Command::Get(retrieval) => retrieval.touch.and_then(|_| refused(READ_ONLY, false)),
        Command::Store(store) => {
            let (noreply, body_len) = (store.reply.noreply(), Some(store.body_len));
            Some(Refused { reply: READ_ONLY, noreply, body_len })
        }
        Command::MetaGet(get) => get.touch.or(get.vivify).and_then(|_| refused(READ_ONLY, false)),
        Command::MetaDelete(_) => refused(READ_ONLY, false),
        Command::Arithmetic(change) => refused(READ_ONLY, change.reply.noreply()),
        Command::Delete { noreply, .. }
        | Command::Touch { noreply, .. }
        | Command::FlushAll { noreply, .. } => refused(READ_ONLY, noreply),
        Command::MetaDebug { .. }
        | Command::MetaNoOp
        | Command::Stats(_)
        | Command::Version
        | Command::Accepted { .. }
        | Command::Quit => None,
    }
}
