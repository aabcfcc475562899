//! What the connections that ask for responses share.

use std::sync::Arc;

use ::http::header::HeaderValue;
use ::http::{HeaderMap, StatusCode};

use super::given::AllGiven;
use crate::http_cache::control_fields::ControlField;
use crate::http_cache::settings::Settings;
use crate::server::http;
use crate::server::proxy::answer::Answer;
use crate::server::proxy::body::Body;
use crate::server::proxy::counts::Served;
use crate::server::proxy::credentials::Credentials;
use crate::server::proxy::shelf::{Shelf, via};

/// What the connections of all workers share.
pub(in crate::server) struct Shared {
    via: HeaderValue,
    given: Arc<AllGiven>,
    credentials: Arc<Credentials>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { via: via(), given: Arc::default(), credentials: Arc::default() }
    }
}

/// What the connections of one worker share.
pub(in crate::server) struct Replay {
    pub(super) shelf: Shelf,
    pub(super) given: Arc<AllGiven>,
    pub(super) credentials: Arc<Credentials>,
    /// The status where nothing is stored that answers.
    pub(super) miss: StatusCode,
}

impl Replay {
    pub(in crate::server) fn new(
        miss: StatusCode,
        http: &Arc<http::Service>,
        shared: &Shared,
    ) -> Arc<Replay> {
        let settings = Settings {
            // Who may use this socket may say so.
            trusted: vec![ControlField::NoStore, ControlField::Ttl, ControlField::Grace],
            // The origin was asked with what the client sent.
            normalizes_accept_encoding: false,
            ..Settings::default()
        };
        let shelf = Shelf {
            settings,
            object_size_max: u64::MAX,
            http: http.clone(),
            via: shared.via.clone(),
        };
        let (given, credentials) = (shared.given.clone(), shared.credentials.clone());
        Arc::new(Replay { shelf, given, credentials, miss })
    }

    /// An answer without content.
    pub(super) fn done(&self, status: StatusCode) -> Answer {
        Answer::new(status, HeaderMap::new(), Body::absent(Some(0)), Served::Refused)
    }
}
