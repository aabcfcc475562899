//! What an operator may choose.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;

use super::condition::Condition;
use super::control_fields::ControlField;
use super::targeted::CDN_CACHE_CONTROL;

/// The choices for one listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What to do with responses that set cookies.
    pub set_cookie: SetCookie,
    /// Whether clients can ask for fresher answers than there are.
    pub client_directives: ClientDirectives,
    /// Requests that are passed, whatever is stored.
    pub bypass: Vec<Condition>,
    /// Requests whose responses are not stored.
    pub no_store: Vec<Condition>,
    /// Fields of either side for this cache that are heard.
    pub trusted: Vec<ControlField>,
    /// Targeted fields, the most specific one first (RFC 9213, section 2.2).
    pub targeted: Vec<HeaderName>,
    /// Longest lifetime that is guessed (RFC 9111, section 4.2.2).
    pub heuristic_max: Duration,
    /// Lifetime of responses that say nothing of theirs, in place of a guess; of statuses whose lifetime
    /// may be guessed.
    pub ttl_default: Option<Duration>,
    /// The same for single statuses, any of them; outranks `ttl_default`.
    pub ttl_status: BTreeMap<StatusCode, Duration>,
    /// Lifetime of all responses that may be stored, whatever they say.
    pub ttl_override: Option<Duration>,
    /// How long a stale response may stand in for an error without the consent of its origin (RFC 9111,
    /// section 4.2.4).
    pub grace_default: Duration,
    /// Take `Cache-Control`, targeted fields and `Pragma` of responses as not there. This puts aside
    /// `no-store` and `private` too.
    pub ignores_cache_control: bool,
    /// Take `Expires` as not there.
    pub ignores_expires: bool,
    /// Take `Vary` as not there.
    pub ignores_vary: bool,
    /// Take the lifetime from `X-Accel-Expires` where the origin sends it.
    pub reads_accel_expires: bool,
    /// Store responses that end with the connection, of which nobody knows whether they are whole.
    pub stores_until_close: bool,
    /// Ask for one of a few forms of `Accept-Encoding` (see [`encoding`](super::encoding)).
    pub normalizes_accept_encoding: bool,
    /// Give a variant of another `Accept-Language` if its `Content-Language` is what the client likes
    /// best (RFC 9111, section 4.1).
    pub selects_language: bool,
}

/// What to do with responses that set cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Do not store them.
    #[default]
    Never,
    /// Store them without the cookies.
    Strip,
    /// Store them as they are, as RFC 9111, section 7.3, has it: all clients get the same cookies.
    Store,
}

/// Whether `Cache-Control` and `Pragma` of requests have an effect. `only-if-cached` always has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientDirectives {
    /// No client can send others' requests to the origin.
    #[default]
    Ignore,
    /// As RFC 9111, section 5.2.1, has it.
    Honor,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            set_cookie: SetCookie::default(),
            client_directives: ClientDirectives::default(),
            bypass: Vec::new(),
            no_store: Vec::new(),
            trusted: Vec::new(),
            targeted: vec![CDN_CACHE_CONTROL],
            heuristic_max: Duration::from_secs(24 * 60 * 60),
            ttl_default: None,
            ttl_status: BTreeMap::new(),
            ttl_override: None,
            grace_default: Duration::ZERO,
            ignores_cache_control: false,
            ignores_expires: false,
            ignores_vary: false,
            reads_accel_expires: false,
            stores_until_close: false,
            normalizes_accept_encoding: true,
            selects_language: false,
        }
    }
}
