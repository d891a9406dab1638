//! The way of each request: how long it may stand still, what is read of a refusal, and what is remembered of it.
//!
//! The library above asks again where that may help; it does not notice a connection on which nothing moves, nor does
//! it wait as long as the other side asks it to. Both are done here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, Error as StoreError};

use super::super::surroundings::Patience;
use crate::host::Stopwatch;

/// No more is read of what a server says about a refusal.
const SAID_MAX_BYTES: usize = 64 << 10;
/// What comes more slowly than this for long does not come.
const SLOWEST_BYTES_PER_S: u64 = 4 << 10;
/// So many times the patience with a standstill is for how long it may be slower.
const SLOW_STALLS: u32 = 4;
/// Machines of a cloud tell credentials at these addresses, at once or never.
const METADATA_HOSTS: [&str; 4] = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal"];
const METADATA_LIMIT: Duration = Duration::from_secs(2);

tokio::task_local! {
    static SEEN: Seen;
}

/// What the last request of an operation came to.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen(Arc<Mutex<Option<Result<(), Outcome>>>>);

/// Why a request was in vain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The other side said no.
    Refusal {
        /// The status of the answer.
        status: u16,
        /// What the service calls it.
        code: Option<String>,
        /// Where the bucket really is, if that was the reason.
        region: Option<String>,
    },
    /// The other side was not reached, or lost.
    Lost {
        /// What the system, or whoever encrypts, says about it.
        why: String,
    },
    /// Nothing moved for so long.
    Stalled {
        /// The time in seconds.
        seconds: u64,
    },
    /// Something came all the time, but too little of it.
    Dripped {
        /// How long that took, in seconds.
        seconds: u64,
    },
    /// Nobody told who the user is.
    Nobody,
}

impl Seen {
    /// Returns what the last request came to; `None` if there was none.
    pub(super) fn last(&self) -> Option<Result<(), Outcome>> {
        self.lock().clone()
    }

    /// Returns what the service called the last refusal.
    pub(super) fn code(&self) -> Option<String> {
        match self.last() {
            Some(Err(Outcome::Refusal { code, .. })) => code,
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<(), Outcome>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what is asked, and remembers in `seen` what its last request came to.
pub(super) async fn watching<T>(seen: Seen, asked: impl Future<Output = T>) -> T {
    SEEN.scope(seen, asked).await
}

fn remember(outcome: Result<(), Outcome>) {
    // Each operation is watched; if one were not, its error would say less.
    let _ = SEEN.try_with(|seen| *seen.lock() = Some(outcome));
}

/// Returns the options for a service that may be asked without encryption.
pub(super) fn options(allow_http: bool) -> ClientOptions {
    // How long something may take in all depends on how much it is: see `Wire`.
    ClientOptions::new().with_allow_http(allow_http).with_timeout_disabled()
}

/// Makes the ways of requests.
#[derive(Debug)]
pub(super) struct Connector {
    patience: Patience,
}

impl Connector {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        provide_encryption();
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = reqwest::Client::builder()
            .user_agent(concat!("pv/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.patience.connect)
            .https_only(!allows_http)
            .http1_only()
            .build()
            .map_err(|error| StoreError::Generic { store: "pv", source: Box::new(Why(root(&error))) })?;
        Ok(HttpClient::new(Wire { client, patience: self.patience }))
    }
}

/// Says once what encrypts for this process.
pub(in crate::remote) fn provide_encryption() {
    static PROVIDER: Once = Once::new();
    // Whoever set one before us is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// The way of requests to one service.
#[derive(Debug)]
struct Wire {
    client: reqwest::Client,
    patience: Patience,
}

impl HttpService for Wire {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Pin<Box<dyn Future<Output = Done> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            if request.uri().host().is_some_and(|host| METADATA_HOSTS.contains(&host)) {
                return self.ask_metadata(request).await;
            }
            let answer = self.send(request).await?;
            let retry_after = retry_after(&answer);
            let answer = self.judge(answer).await?;
            // The library asks again after this, as soon as it sees fit.
            if let Some(pause) = retry_after {
                tokio::time::sleep(pause.min(self.patience.pause)).await;
            }
            Ok(answer)
        })
    }
}

type Done = Result<HttpResponse, HttpError>;

impl Wire {
    /// Sends a request; returns the head of the answer. As long as something moves, it is waited for.
    async fn send(&self, request: HttpRequest) -> Result<http::Response<reqwest::Body>, HttpError> {
        let sent = Arc::new(AtomicU64::new(0));
        let request = reworded(request, &sent);
        let mut answering = std::pin::pin!(self.client.execute(request));
        let mut sent_before = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(self.patience.stall, &mut answering).await {
                return answer.map(Into::into).map_err(lost);
            }
            let sent_by_now = sent.load(Ordering::Relaxed);
            if sent_by_now == sent_before {
                return Err(stalled(self.patience));
            }
            sent_before = sent_by_now;
        }
    }

    /// Remembers what an answer comes to. A refusal is read whole; of anything else, the rest comes as it is asked for.
    async fn judge(&self, answer: http::Response<reqwest::Body>) -> Done {
        let (head, body) = answer.into_parts();
        if head.status.is_success() || head.status == http::StatusCode::NOT_MODIFIED {
            remember(Ok(()));
            return Ok(http::Response::from_parts(head, watched(body, self.patience)));
        }
        let said = tokio::time::timeout(self.patience.stall, read_some(body)).await.unwrap_or_default();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        remember(Err(Outcome::Refusal {
            status: head.status.as_u16(),
            code: header("x-ms-error-code").or_else(|| code_in(&said)).filter(|code| is_plain(code)),
            region: header("x-amz-bucket-region").filter(|region| is_plain(region)),
        }));
        Ok(http::Response::from_parts(head, said.into()))
    }

    /// Asks the machine who the user is. Most machines know nobody, which is no reason to wait.
    async fn ask_metadata(&self, request: HttpRequest) -> Done {
        let asked = async {
            let answer = self.client.execute(reworded(request, &Arc::default())).await.ok()?;
            let answer = http::Response::<reqwest::Body>::from(answer);
            answer.status().is_success().then_some(answer)
        };
        match tokio::time::timeout(METADATA_LIMIT, asked).await {
            Ok(Some(answer)) => self.judge(answer).await,
            _ => {
                remember(Err(Outcome::Nobody));
                // This kind is not tried again.
                Err(HttpError::new(HttpErrorKind::Unknown, Why("nobody told who the user is".to_owned())))
            }
        }
    }
}

/// Returns the same request for the client, whose body tells how much of it is gone.
fn reworded(request: HttpRequest, sent: &Arc<AtomicU64>) -> reqwest::Request {
    let (head, body) = request.into_parts();
    let url = head.uri.to_string().parse().expect("an address that was one is one");
    let mut reworded = reqwest::Request::new(head.method, url);
    *reworded.headers_mut() = head.headers;
    let body = match body.as_bytes() {
        Some(bytes) => reqwest::Body::from(bytes.clone()),
        None => {
            let sent = Arc::clone(sent);
            reqwest::Body::wrap(body.map_frame(move |frame| {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                sent.fetch_add(bytes, Ordering::Relaxed);
                frame
            }))
        }
    };
    *reworded.body_mut() = Some(body);
    reworded
}

/// Returns the body of an answer, which fails once nothing comes for too long, or too little.
fn watched(body: reqwest::Body, patience: Patience) -> HttpResponseBody {
    // Only time in which it is waited for: what has come may be worked on for long before more is asked for.
    let begun = (body, Duration::ZERO, 0);
    let frames = stream::try_unfold(begun, move |(mut body, mut waited, mut bytes)| async move {
        let stopwatch = Stopwatch::start();
        let Ok(next) = tokio::time::timeout(patience.stall, body.frame()).await else { return Err(stalled(patience)) };
        let Some(frame) = next else { return Ok(None) };
        let frame = frame.map_err(lost)?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        let limit = patience.stall * SLOW_STALLS + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S);
        waited += stopwatch.elapsed();
        if waited > limit {
            return Err(dripped(limit));
        }
        Ok(Some((frame, (body, waited, bytes))))
    });
    HttpResponseBody::new(StreamBody::new(frames))
}

/// Returns the begin of what a server says.
async fn read_some(mut body: reqwest::Body) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        said.extend_from_slice(&data[..data.len().min(SAID_MAX_BYTES - said.len())]);
        if said.len() == SAID_MAX_BYTES {
            break;
        }
    }
    said
}

/// Returns how long the other side asks to wait before it is asked again.
fn retry_after<T>(answer: &http::Response<T>) -> Option<Duration> {
    if !matches!(answer.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = answer.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns what an S3-like service calls the failure.
fn code_in(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let (_, behind) = said.split_once("<Code>")?;
    Some(behind.split_once("</Code>")?.0.to_owned())
}

/// Returns whether a word can be nothing but a name.
fn is_plain(word: &str) -> bool {
    (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn lost(error: reqwest::Error) -> HttpError {
    remember(Err(Outcome::Lost { why: root(&error) }));
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        // What has no effect when it is done twice is tried again.
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, Why(root(&error)))
}

fn stalled(patience: Patience) -> HttpError {
    let seconds = patience.stall.as_secs();
    remember(Err(Outcome::Stalled { seconds }));
    HttpError::new(HttpErrorKind::Timeout, Why(format!("nothing moved for {seconds} seconds")))
}

fn dripped(limit: Duration) -> HttpError {
    let seconds = limit.as_secs();
    remember(Err(Outcome::Dripped { seconds }));
    HttpError::new(HttpErrorKind::Timeout, Why(format!("too little came within {seconds} seconds")))
}

/// Returns what began it: what is above says only who asked for what, addresses included.
pub(in crate::remote) fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // An error without a cause tells the address.
    if cause.is::<reqwest::Error>() { "the request failed".to_owned() } else { cause.to_string() }
}

/// A cause in words, of which none came from somebody who knows a secret.
struct Why(String);

impl std::error::Error for Why {}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_service_says_only_a_plain_name_is_kept() {
        let code = |said: &str| code_in(said.as_bytes()).filter(|code| is_plain(code));
        assert_eq!(code("<?xml?><Error><Code>SlowDown</Code><Key>k</Key></Error>").as_deref(), Some("SlowDown"));
        for said in ["", "SlowDown", "<Code>SlowDown", "<Code></Code>", "<Code>a=b</Code>", "<Code>two words</Code>"] {
            assert_eq!(code(said), None, "{said}");
        }
        assert_eq!(code(&format!("<Code>{}</Code>", "a".repeat(65))), None);
    }

    #[test]
    fn a_server_that_has_enough_says_how_long() {
        let asked = |status: u16, value: &str| {
            retry_after(&http::Response::builder().status(status).header("Retry-After", value).body(()).unwrap())
        };
        assert_eq!(asked(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(asked(429, " 0 "), Some(Duration::ZERO));
        for (status, value) in [(500, "7"), (200, "7"), (503, "-1"), (503, "soon")] {
            assert_eq!(asked(status, value), None, "{status} {value}");
        }
    }
}
