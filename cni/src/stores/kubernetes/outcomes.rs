//! What an answer of the API server says about a write.
//!
//! | answer | outcome | why |
//! |---|---|---|
//! | 200, 201 | accepted | it is in etcd |
//! | 409 Conflict, AlreadyExists | refused | the version or the UID is another one, or the name is taken |
//! | 404, 410 | refused | the object is gone, and its version with it; or, on a POST, the definition, which the next read tells |
//! | 400, 403, 405, 413, 415, 422 and every other 4xx | rejected | it was turned away before it was stored, as the next one would be |
//! | 401 | unknown | the token is read again, and the same write repeated |
//! | 408, 429 | unknown | it is to be repeated, after Retry-After where the server says so |
//! | 5xx | unknown | the server may have broken down on the way back from etcd |
//! | 2xx that cannot be read | unknown | it is in etcd, but nobody knows under which version |
//! | no answer, a broken connection, a time-out | unknown | it may be on its way, even now |

use http::StatusCode;
use serde::Deserialize;
use whereabouts_engine::{Outcome, Version};

use super::client::{Reply, Silence};

/// The cure for a missing right.
pub(super) const GRANT: &str = "grant the rights in deploy/kubernetes/rbac.yaml";

/// The metadata of an object that count.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

#[derive(Deserialize)]
struct Written {
    metadata: Metadata,
}

// === impl Metadata ===

impl Metadata {
    /// The version of an object: its resource version and its UID. The first alone would be accepted again by an object
    /// that was deleted and made anew.
    pub(super) fn version(&self) -> Version {
        Version::from_bytes(format!("{}\n{}", self.resource_version, self.uid).as_bytes())
    }

    /// What tells the object from another one that was made later under its name.
    pub(super) fn identity(&self) -> Vec<u8> {
        self.uid.clone().into_bytes()
    }
}

/// The resource version and the UID in a version; empty where nothing is expected to be there.
pub(super) fn parts(version: &Version) -> (String, String) {
    let text = String::from_utf8_lossy(version.as_bytes());
    let (resource_version, uid) = text.split_once('\n').unwrap_or((&text, ""));
    (resource_version.to_owned(), uid.to_owned())
}

/// What became of a write.
pub(super) fn of_write(reply: Result<Reply, Silence>) -> Outcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(reason) => return Outcome::Unknown { reason },
    };
    if reply.status.is_success() {
        return match serde_json::from_slice::<Written>(&reply.body) {
            Ok(Written { metadata }) if !metadata.uid.is_empty() && !metadata.resource_version.is_empty() => {
                Outcome::Accepted { version: metadata.version(), identity: metadata.identity() }
            }
            _ => Outcome::Unknown { reason: "the API server's answer to a write cannot be read".to_owned() },
        };
    }
    match reply.status {
        StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::GONE => Outcome::Refused,
        StatusCode::UNAUTHORIZED => Outcome::Unknown { reason: reply.reason() },
        StatusCode::FORBIDDEN => Outcome::Rejected { reason: format!("{}; {GRANT}", reply.reason()) },
        status if status.is_client_error() && !reply.is_passing() => Outcome::Rejected { reason: reply.reason() },
        _ => Outcome::Unknown { reason: reply.reason() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Result<Reply, Silence> {
        Ok(Reply { status: StatusCode::from_u16(status).unwrap(), body: body.into(), retry_after: None })
    }

    #[test]
    fn what_is_in_etcd_is_accepted_under_its_version() {
        let body = r#"{"metadata":{"name":"b","uid":"u1","resourceVersion":"17"},"spec":{}}"#;
        let Outcome::Accepted { version, identity } = of_write(reply(201, body)) else { panic!("not accepted") };
        assert_eq!(parts(&version), ("17".to_owned(), "u1".to_owned()));
        assert_eq!(identity, b"u1");
    }

    #[test]
    fn only_what_was_turned_away_for_good_is_refused_or_rejected() {
        for status in [404, 409, 410] {
            assert_eq!(of_write(reply(status, "")), Outcome::Refused, "{status}");
        }
        for status in [400, 403, 405, 413, 415, 422] {
            assert!(matches!(of_write(reply(status, "")), Outcome::Rejected { .. }), "{status}");
        }
        for status in [200, 201, 301, 401, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(of_write(reply(status, "{}")), Outcome::Unknown { .. }), "{status}");
        }
        assert!(matches!(of_write(Err("cut".to_owned())), Outcome::Unknown { .. }));
    }
}
