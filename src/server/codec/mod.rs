//! HTTP/1.1 as bytes: heads of requests, how long their bodies are, chunks, and heads of answers.
//! Pure: takes bytes and gives values. Refuses whatever two readers could take for two things.
//!
//! It is the only reader of requests on the data listeners, and reads what came as it came.

pub mod chunks;
pub mod fault;
pub mod head;
pub mod head_reader;
pub mod target;

mod answer_head;
mod fields;
mod framing;
mod host;

pub(super) use answer_head::{AnswerHead, CONTINUE, date};
pub use framing::Framing;
