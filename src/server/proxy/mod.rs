//! Read-through: a shared HTTP cache in front of one upstream. A proxy sends its requests here; what
//! is stored is answered, the rest is asked of the upstream, and what may be stored is, while all who
//! want it follow. Owns the exchange with the upstream; what may be done with a message, `http_cache`
//! says.

pub mod options;

mod access_log;
mod answer;
mod body;
mod coming;
mod connection;
mod counts;
mod credentials;
mod dispatch;
mod failures;
mod fetch;
mod fill;
mod group_limit;
mod head;
mod invalidate;
mod keeping;
mod key;
mod look;
mod lookup;
mod new_response;
mod opening;
mod outcome;
mod part_fetch;
mod partial;
mod parts;
mod parts_body;
mod pass;
mod place;
mod plain_hit;
mod post;
mod purge;
mod purge_token;
mod query_rule;
mod removal;
pub(super) mod replay;
mod service;
mod shelf;
mod slots;
mod stored;
mod tunnel;
mod upstream;
mod uses;
mod wanted;

pub use access_log::AccessLogSnapshot;
pub(super) use access_log::{AccessLog, AccessLogCounts};
pub(super) use connection::serve;
pub use counts::{HELD_BACK, ProxySnapshot, RESULTS, UPSTREAM_ERRORS};
pub(super) use counts::{ProxyShard, write_proxy};
pub(super) use key::{KEY_SEPARATOR, key_by, key_of, prefix_of, rule_key};
pub(super) use new_response::group_tag;
pub use purge_token::PurgeToken;
pub(super) use query_rule::rule_of;
pub(super) use service::{Service, Shared};
