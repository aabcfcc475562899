//! HTTP/1.1 as bytes: heads of requests and responses, how long their bodies are, and chunks.
//! Pure: takes bytes and gives values. Refuses whatever two readers could take for two things.
//!
//! It is the only reader of requests on the data listeners and of responses of upstreams, and reads
//! what came as it came.

pub mod chunks;
pub mod fault;
pub mod head;
pub mod head_reader;
pub mod response_head;
pub mod response_reader;
pub mod target;

mod answer_head;
mod fields;
mod framing;
mod head_search;
mod host;
mod request_to_upstream;

pub(super) use answer_head::{AnswerHead, BodyEnd, CONTINUE, date};
pub use framing::Framing;
pub(super) use request_to_upstream::RequestToUpstream;
