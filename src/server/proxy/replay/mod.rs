//! Replay: a proxy stores whole responses of its origin under `/v1/responses/<key>`, and gets them back as
//! responses: with their status and their age, by ranges and conditions, and by what they vary by. It
//! asks no upstream itself.

mod connection;
mod dispatch;
mod get;
mod given;
mod put;
mod received;
mod service;

pub(in crate::server) use service::{Replay, Shared};

/// The path of all responses, before their keys.
pub(in crate::server) const RESPONSES: &str = "/v1/responses/";
