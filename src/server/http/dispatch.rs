//! From a request to its answer. Owns which function answers a method.

use http::Method;
use http::header::{ALLOW, CONTENT_RANGE, HeaderValue};

use super::key::{OBJECTS, key};
use super::purge::PURGES;
use super::refusal::Refusal;
use super::repeated;
use super::request_body::RequestBody;
use super::service::{Answer, Service, plain};
use super::wire::Socket;
use crate::server::access::Access;
use crate::server::codec::head::RequestHead;
use crate::server::presence::while_there;

impl Service {
    /// Answers one request. What the method does not need of the body is left in it.
    pub(super) async fn answer<S: Socket>(
        &self,
        head: &RequestHead,
        body: &mut RequestBody<'_, S>,
        access: Access,
    ) -> Answer {
        self.dispatch(head, body, access).await.unwrap_or_else(|refusal| {
            let mut answer = plain(refusal);
            if refusal == Refusal::METHOD {
                let allowed = HeaderValue::from_static("GET, HEAD, PUT, PATCH, DELETE, PURGE");
                answer.headers_mut().insert(ALLOW, allowed);
            }
            answer
        })
    }

    async fn dispatch<S: Socket>(
        &self,
        head: &RequestHead,
        body: &mut RequestBody<'_, S>,
        access: Access,
    ) -> Result<Answer, Refusal> {
        repeated::check(&head.headers)?;
        if head.method == Method::POST && head.target.path() == PURGES {
            return match access.read_only {
                true => Err(Refusal::READ_ONLY),
                // Rare.
                false => Box::pin(self.purge_many(body)).await,
            };
        }
        let key = key(head.target.path(), OBJECTS, head.target.query())?;
        match head.method {
            Method::GET => Ok(self.get(&key, &head.headers).await),
            Method::HEAD => Ok(self.head(&key, &head.headers).await),
            _ if access.read_only => Err(Refusal::READ_ONLY),
            Method::PUT if head.headers.contains_key(CONTENT_RANGE) => {
                // Rare, and larger than the rest.
                Box::pin(self.put_part(&key, head, body)).await
            }
            Method::PUT => self.put(&key, head, body).await,
            Method::PATCH if !body.is_empty() => Err(Refusal::PATCH_BODY),
            Method::PATCH => {
                // Rare, and larger than all the rest of a connection.
                let mut patch = Box::pin(self.patch(&key, &head.headers));
                while_there(body, patch.as_mut()).await.unwrap_or(Err(Refusal::GONE))
            }
            Method::DELETE => self.delete(&key, &head.headers).await,
            _ if head.method.as_str() == "PURGE" => self.delete(&key, &head.headers).await,
            _ => Err(Refusal::METHOD),
        }
    }
}
