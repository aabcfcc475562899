//! PUT: a whole response as the origin sent it is stored, if a shared cache may.

use ::http::{HeaderMap, StatusCode};

use super::given::{Given, LEASE};
use super::received::Received;
use super::service::Replay;
use crate::cache::{Condition, Lease, StoreError};
use crate::clock::Stopwatch;
use crate::http_cache::head::{Exchange, RequestHead};
use crate::http_cache::storing::{Kept, Refused, Storing, store};
use crate::server::codec;
use crate::server::codec::head::RequestHead as Came;
use crate::server::http::counts::HttpOperation;
use crate::server::http::refusal::Refusal;
use crate::server::http::request_body::RequestBody;
use crate::server::http::wire::Socket;
use crate::server::http::{lifetime, put};
use crate::server::proxy::answer::Answer;
use crate::server::proxy::fetch::core_head;
use crate::server::proxy::new_response::NewResponse;
use crate::server::proxy::opening::Opened;
use crate::server::proxy::outcome::HIT_FOR_MISS;
use crate::server::proxy::place::Place;

/// Not 503: sent once more without its lease, a response that was purged meanwhile would be stored.
const NOT_STORED: Refusal = Refusal {
    status: StatusCode::CONFLICT,
    text: "not stored: purged meanwhile, the device cannot keep up, or the head is too long\n",
};

impl Replay {
    pub(super) async fn put<S: Socket>(
        &self,
        came: &Came,
        (request, target): (RequestHead, Vec<u8>),
        body: &mut RequestBody<'_, S>,
    ) -> Result<Answer, Refusal> {
        let (shelf, http) = (&self.shelf, &self.shelf.http);
        http.shard.cmd_set.bump();
        // From here on the lease is taken: whatever fails gives it to the next who waits.
        let given = match number(&came.headers) {
            None => None,
            // Without it nobody knows which purges came since it was asked for.
            Some(number) => Some(self.given.take(number?, &target).ok_or(NOT_STORED)?),
        };
        put::check_framing(came, body)?;
        lifetime::explicit(&came.headers)?;
        let ack = put::ack(&came.headers)?;
        let now = || http.cache.clock().now();
        // Before the look: purges from now on prevail.
        let alone = given.is_none().then(|| (http.cache.lease_alone(&target), now()));
        let place = shelf.place_of(&request, &target).await;
        if let Some(given) = &given {
            let present = http.cache.lookup_stale(&place.key).await;
            let is_older = present.is_some_and(|hit| hit.lifetime().stored_at > given.at);
            if is_older || !given.fits(&place) {
                return Err(NOT_STORED);
            }
        }
        let Some((lease, at)) = given.map(Given::into_lease).or(alone) else {
            return Err(NOT_STORED);
        };
        let mut received = Received::new(body);
        let head = received.head(http.buffers.memory()).await?;
        let exchange = Exchange {
            requested_at: at,
            received_at: now(),
            received_date: codec::date(http.cache.clock().wall()),
        };
        let mut head = core_head(head);
        // The end of the PUT is its end.
        head.ends_with_connection = false;
        let kept = match store(&request, &head, &exchange, &shelf.settings) {
            // Nobody validates it here.
            Storing::Whole(kept) if is_of_no_use(&kept) => {
                return self.not_stored((lease, &place), head.status, Refused::Useless).await;
            }
            Storing::Whole(kept) => kept,
            Storing::Part { .. } => {
                return self.not_stored((lease, &place), head.status, Refused::Status).await;
            }
            Storing::No(refused) => {
                return self.not_stored((lease, &place), head.status, refused).await;
            }
        };
        let len = received.body_len();
        if len.is_some_and(|len| len > http.cache.object_len_max()) {
            return Err(Refusal::TOO_LARGE);
        }
        let new = NewResponse { lease, place, request, kept, ack };
        let begun = shelf.begin_store(new, (len, None)).await;
        let Some((Opened::Body(mut writer, _), true)) = begun else { return Err(NOT_STORED) };
        received.store(&mut writer).await?.map_err(|error| http.store_failed(&error))?;
        let watch = Stopwatch::start();
        let stored = writer.finalize(Condition::Always).await;
        http.shard.http.record(HttpOperation::Put, watch.elapsed());
        match stored {
            Err(StoreError::Purged) => Err(NOT_STORED),
            Err(error) => Err(http.store_failed(&error)),
            Ok(_) => Ok(self.done(StatusCode::CREATED)),
        }
    }

    /// A response that may not be stored: what was stored before is not the origin's word any more, and nobody is to
    /// wait for the next one where that is likely to be the same.
    async fn not_stored(
        &self,
        (lease, place): (Lease, &Place),
        status: StatusCode,
        refused: Refused,
    ) -> Result<Answer, Refusal> {
        if refused == Refused::Authorization {
            self.credentials.note(lease.key());
        }
        if refused.marks_key(status) {
            self.shelf.drop_stored(&place.key).await;
            // Of several variants this one alone is known to be so.
            if lease.key() == place.key {
                lease.refuse(HIT_FOR_MISS);
            }
        }
        Err(Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, text: why(refused) })
    }
}

/// Whether a response is stale from the start, and stays so.
fn is_of_no_use(kept: &Kept) -> bool {
    let Kept { head, .. } = kept;
    let is_stale = head.terms.no_cache || head.initial_age >= head.terms.lifetime;
    is_stale && (head.terms.no_cache || head.terms.stale_while_revalidate.is_zero())
}

/// The lease that a request names. Empty, it names none: proxies send a variable that is.
fn number(headers: &HeaderMap) -> Option<Result<u64, Refusal>> {
    let text = headers.get(LEASE).filter(|text| !text.is_empty())?;
    let number = text.to_str().ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    Some(number.ok_or(NOT_STORED))
}

/// What a client is told of a response that is not stored.
fn why(refused: Refused) -> &'static str {
    match refused {
        Refused::Request => "responses to such a request are not stored\n",
        Refused::RequestNoStore => "the request forbids to store its response\n",
        Refused::Status => "a response with this status is not stored\n",
        Refused::NotUnderstood => "must-understand, and a status that is not understood\n",
        Refused::NoStore => "no-store\n",
        Refused::Private => "private\n",
        Refused::Authorization => {
            "the request had Authorization, and the response does not permit to store it\n"
        }
        Refused::SetCookie => "the response sets cookies\n",
        Refused::Varies => "Vary: *, or more than is kept\n",
        Refused::Tags => "the response has more tags than are kept\n",
        Refused::Ambiguous => "a field that may be there once is there twice\n",
        Refused::NotMarked => "nothing says that the response may be stored\n",
        Refused::Useless => "the response is stale, and nothing could make it fresh again\n",
        Refused::UntilClose => "only the end of the connection ends the response\n",
    }
}
