//! One request, one answer: bounded in time and size, counted, never repeated behind our back.
//!
//! `kube` brings TLS, tokens and the address; what an answer means is read here. Its own readers log a body that they do
//! not understand, which is tenants' text without end, and its retries would repeat an Eviction (CRATES: `default_retry`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response};
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::stats::Stats;
use super::text;

/// Longest answer that is read: 500 pods of 20 kB are 10 MB.
const LONGEST_ANSWER: usize = 64 << 20;

/// Longest line of a watch: etcd holds no object over 1.5 MB.
const LONGEST_LINE: usize = 4 << 20;

/// Why there is no answer, or none that helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// No connection, or it ended before the answer did.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the API server does not answer in time")]
    Timeout,
    /// The server said no.
    #[error("the API server says {code} {reason}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its word for it (`Forbidden`).
        reason: String,
        /// Its sentence, which names what is missing.
        message: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// Something that is no answer to the question: a proxy's page, another object.
    #[error("what answers in place of the API server is not one: {0}")]
    Nonsense(String),
}

impl Failure {
    pub(super) fn answer(code: u16, reason: &str, message: &str, retry_after: Option<Duration>) -> Failure {
        Failure::Refused { code, reason: text::word(reason), message: text::line(message, 512), retry_after }
    }

    /// The word that metrics count it by.
    #[must_use]
    pub(super) fn class(&self) -> &'static str {
        match self {
            Failure::Unreachable(_) => "unreachable",
            Failure::Timeout => "timeout",
            Failure::Nonsense(_) => "nonsense",
            Failure::Refused { code, .. } => match code {
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                409 => "conflict",
                410 => "gone",
                422 => "invalid",
                429 => "throttled",
                500.. => "server_error",
                _ => "refused",
            },
        }
    }

    /// The status, where there is one.
    #[must_use]
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Failure::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn is(&self, wanted: u16) -> bool {
        self.code() == Some(wanted)
    }

    /// Asking again soon gets the same answer: rights and resources change by people's hands.
    pub(super) fn will_stay(&self) -> bool {
        matches!(self.code(), Some(401 | 403 | 404 | 405 | 422))
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The Status object of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: Option<u64>,
}

impl Status {
    pub(super) fn failure(self) -> Failure {
        let retry_after = self.details.retry_after_seconds.map(Duration::from_secs);
        Failure::answer(self.code, &self.reason, &self.message, retry_after)
    }
}

/// The content type of a body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patch {
    /// RFC 7386.
    Merge,
    /// Lists by their keys; built-in types only.
    Strategic,
}

/// The API server.
#[derive(Clone)]
pub(super) struct Kube {
    client: kube::Client,
    stats: Stats,
    /// Of a request with its whole answer; of a watch up to its header.
    deadline: Duration,
}

impl Kube {
    pub(super) fn new(client: kube::Client, stats: Stats, deadline: Duration) -> Kube {
        Kube { client, stats, deadline }
    }

    /// GET of one object or a list, at most `deadline` long.
    pub(super) async fn get<T: DeserializeOwned>(&self, resource: &'static str, path: &str) -> Result<T, Failure> {
        self.call(resource, "GET", path, "", Vec::new()).await
    }

    /// POST.
    pub(super) async fn create(
        &self,
        resource: &'static str,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<Object, Failure> {
        self.call(resource, "POST", path, "application/json", body.to_string().into_bytes()).await
    }

    /// PUT.
    pub(super) async fn replace(
        &self,
        resource: &'static str,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<Object, Failure> {
        self.call(resource, "PUT", path, "application/json", body.to_string().into_bytes()).await
    }

    /// PATCH.
    pub(super) async fn patch(
        &self,
        resource: &'static str,
        path: &str,
        kind: Patch,
        body: &serde_json::Value,
    ) -> Result<Object, Failure> {
        let content_type = match kind {
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        };
        self.call(resource, "PATCH", path, content_type, body.to_string().into_bytes()).await
    }

    /// DELETE.
    pub(super) async fn delete(&self, resource: &'static str, path: &str) -> Result<(), Failure> {
        let _: serde::de::IgnoredAny = self.call(resource, "DELETE", path, "", Vec::new()).await?;
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        resource: &'static str,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let whole = async {
            let response = self.send(method, path, content_type, body).await?;
            let bytes = whole_body(response).await?;
            serde_json::from_slice(&bytes).map_err(|error| nonsense(&error.to_string()))
        };
        let result = timeout(self.deadline, whole).await.unwrap_or(Err(Failure::Timeout));
        self.stats.request(resource, result.as_ref().err().map_or("ok", Failure::class));
        result
    }

    /// Opens a watch.
    pub(super) async fn watch(&self, resource: &'static str, path: &str) -> Result<Lines, Failure> {
        let opened = timeout(self.deadline, self.send("GET", path, "", Vec::new()));
        let result = opened.await.unwrap_or(Err(Failure::Timeout));
        self.stats.request(resource, result.as_ref().err().map_or("ok", Failure::class));
        Ok(Lines { body: result?.into_body(), buffer: Vec::new(), read: 0 })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Body::from(body)).map_err(|error| nonsense(&error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let header = header.map(Duration::from_secs);
        let bytes = whole_body(response).await?;
        let mut status: Status = serde_json::from_slice(&bytes).unwrap_or_default();
        status.code = code;
        if status.message.is_empty() {
            status.message = text::line(&String::from_utf8_lossy(&bytes), 200);
        }
        Err(match status.failure() {
            Failure::Refused { code, reason, message, retry_after } => {
                Failure::Refused { code, reason, message, retry_after: header.or(retry_after) }
            }
            other => other,
        })
    }
}

/// Of an answer to a write: what a next one needs.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Meta,
}

/// Identity of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

async fn whole_body(response: Response<Body>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| Failure::Unreachable(root_cause(&*error)))
}

fn nonsense(words: &str) -> Failure {
    Failure::Nonsense(text::line(words, 200))
}

fn unreachable(error: &kube::Error) -> Failure {
    Failure::Unreachable(root_cause(error))
}

/// The innermost error says what happened; those around it only that something did.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    text::line(&innermost.to_string(), 200)
}

/// The lines of a watch.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// So much of the buffer holds no end of a line.
    read: usize,
}

impl Lines {
    /// The next line; `None` where the server ended the watch properly.
    ///
    /// # Errors
    /// Nothing for `idle`, a connection that broke, a line without end.
    pub(super) async fn next(&mut self, idle: Duration) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(Failure::Nonsense(format!("a line of a watch is longer than {LONGEST_LINE} bytes")));
            }
            match timeout(idle, self.body.frame()).await {
                Err(_) => return Err(Failure::Timeout),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(Failure::Unreachable("the watch ended in the middle of a line".to_owned())),
                Ok(Some(Err(error))) => return Err(unreachable(&error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unread = self.buffer.get(self.read..)?;
        let Some(end) = unread.iter().position(|byte| *byte == b'\n') else {
            self.read = self.buffer.len();
            return None;
        };
        let mut line: Vec<u8> = self.buffer.drain(..=self.read + end).collect();
        self.read = 0;
        line.pop();
        // One large object must not keep its memory for the life of the watch.
        self.buffer.shrink_to(16 << 10);
        Some(line)
    }
}

/// A value of a query.
pub(super) fn query_value(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_words_of_the_metric() {
        let of = |code| Failure::answer(code, "", "", None);
        let classes: Vec<&str> = [401, 403, 404, 409, 410, 422, 429, 500, 418].map(|code| of(code).class()).to_vec();
        let expected = [
            "unauthorized",
            "forbidden",
            "not_found",
            "conflict",
            "gone",
            "invalid",
            "throttled",
            "server_error",
            "refused",
        ];
        assert_eq!(classes, expected);
        assert!(of(403).will_stay() && !of(503).will_stay() && !Failure::Timeout.will_stay());
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_query() {
        assert_eq!(query_value("a&b=c/d e"), "a%26b%3Dc%2Fd%20e");
    }
}
