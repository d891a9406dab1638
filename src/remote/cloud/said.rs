//! What is said when something fails.
//!
//! Errors of the library, and answers of services, repeat requests: their queries, signatures, and the names of keys. So
//! nothing of them is passed on but a status, a name for the failure, and what the system said about a connection.

use object_store::Error as StoreError;

use super::super::bucket::{BucketError, Trouble};
use super::wire::{Outcome, Seen};

/// A cause in our own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(pub(super) String);

/// Returns what went wrong: which sort of failure it is, and a cause that can be shown to anybody.
pub(super) fn told(action: &'static str, name: &str, error: &StoreError, seen: &Seen) -> BucketError {
    let (trouble, said) = match seen.last() {
        Some(Err(outcome)) => (of_outcome(&outcome), in_words(&outcome)),
        // Nothing was even asked: keys were to be fetched, or used, first.
        None if matches!(error, StoreError::Generic { .. }) => {
            (Trouble::Refused, "the credentials of this user cannot be had, or not be used".to_owned())
        }
        Some(Ok(())) | None => (of_error(error), without_outcome(error)),
    };
    BucketError::on(action, name, trouble)(Said(said))
}

fn of_outcome(outcome: &Outcome) -> Trouble {
    match outcome {
        Outcome::Nobody => Trouble::Refused,
        Outcome::Lost { .. } | Outcome::Stalled { .. } | Outcome::Dripped { .. } => Trouble::Unreachable,
        Outcome::Refusal { status, .. } => match status {
            401 | 403 => Trouble::Refused,
            404 => Trouble::Missing,
            405 | 501 => Trouble::Unsupported,
            408 | 429 | 500.. => Trouble::Unreachable,
            416 => Trouble::Garbled,
            _ => Trouble::Other,
        },
    }
}

fn of_error(error: &StoreError) -> Trouble {
    match error {
        StoreError::NotFound { .. } => Trouble::Missing,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Trouble::Refused,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => Trouble::Unsupported,
        // The answer came, and was not what it should be.
        StoreError::Generic { .. } => Trouble::Garbled,
        _ => Trouble::Other,
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refusal { status, code, region } => {
            let reason = http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
            let mut said = format!("the server answered {status}");
            for word in [reason, code.as_deref()].into_iter().flatten() {
                said = format!("{said}, {word}");
            }
            match region {
                Some(region) if *status < 400 || code.as_deref() == Some("AuthorizationHeaderMalformed") => {
                    format!("{said}: the bucket is in the region `{region}`")
                }
                _ => said,
            }
        }
        Outcome::Lost { why } => format!("the connection failed: {why}"),
        Outcome::Stalled { seconds } => format!("nothing moved for {seconds} seconds"),
        Outcome::Dripped { seconds } => format!("too little came within {seconds} seconds"),
        Outcome::Nobody => {
            "no credentials were found in the environment or in files, and this machine was given none".to_owned()
        }
    }
}

fn without_outcome(error: &StoreError) -> String {
    let said = match error {
        StoreError::NotFound { .. } => "it is not there",
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => "there is one already",
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => "the service cannot do that",
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => "the service refuses it",
        _ => "the answer is not what was asked for",
    };
    said.to_owned()
}
