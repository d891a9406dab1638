//! Images in a registry: manifests and layers, asked for over HTTP.
//!
//! What comes is not checked here; whoever reads it knows the digests. Credentials are those that
//! the user gave to other programs for containers (see `credentials`), and go nowhere but to
//! the registry and to whom it names for that, and that encrypted. A registry on this machine itself
//! is asked without encryption.

mod credentials;

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::Runtime;

use self::credentials::Credentials;
use super::cloud::{provide_encryption, root};
use super::surroundings::{Patience, Surroundings};
use crate::environment::image::{
    Blob, Blobs, Descriptor, ImageDigest, ImageError, MANIFEST_TYPES, Repository, Trouble,
};

/// A manifest is not larger than this.
const MANIFEST_MAX_BYTES: usize = 4 << 20;
/// What a server of tokens says is not longer than this.
const TOKEN_MAX_BYTES: usize = 1 << 20;
/// The host that serves what is called `docker.io`.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// One image in a registry.
pub struct Registry {
    repository: Repository,
    client: Client,
    credentials: Option<Credentials>,
    /// What the registry wants to see with each request, once it has said so.
    authorization: Mutex<Option<String>>,
    patience: Patience,
    // Last, so that whatever still uses it goes first.
    runtime: Runtime,
}

impl Registry {
    /// Returns the image that `repository` names. Nothing is asked yet, but where credentials are.
    ///
    /// # Errors
    ///
    /// [`ImageError::Fetch`] if this machine cannot ask anything.
    pub fn open(repository: &Repository, surroundings: &Surroundings<'_>) -> Result<Self, ImageError> {
        provide_encryption();
        let patience = surroundings.patience;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ImageError::Fetch {
            what: format!("`{repository}`"),
            trouble: Trouble::Other,
            source,
        };
        let client = Client::builder()
            .user_agent(concat!("pv/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .https_only(!is_this_machine(&repository.host))
            .http1_only()
            .build()
            .map_err(|error| failed(root(&error).into()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pv-registry")
            .enable_all()
            .build()
            .map_err(|error| failed(error.into()))?;
        let credentials = Credentials::find(repository, surroundings);
        let repository = repository.clone();
        Ok(Self { repository, client, credentials, authorization: Mutex::default(), patience, runtime })
    }

    fn url(&self, kind: &str, name: &str) -> String {
        let Repository { host, path, .. } = &self.repository;
        let scheme = if is_this_machine(host) { "http" } else { "https" };
        let host = if host == "docker.io" { DOCKER_HOST } else { host };
        format!("{scheme}://{host}/v2/{path}/{kind}/{name}")
    }

    /// Asks until there is an answer that it makes no sense to ask for again.
    async fn ask(&self, url: &str, accept: Option<&str>, from: u64) -> Result<Response, Failure> {
        let (mut tries, mut has_said_who) = (0, false);
        loop {
            tries += 1;
            let mut request = self.client.get(url);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(authorization) = self.authorization().clone() {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = self.send(request).await;
            let (failure, pause) = match answer {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !has_said_who => {
                    has_said_who = true;
                    self.say_who(&answer).await?;
                    continue;
                }
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => (Failure::of(answer.status()), pause_of(&answer)),
                Err(failure) => (failure, None),
            };
            if !failure.may_pass || tries >= self.patience.tries {
                return Err(failure);
            }
            let pause = pause.unwrap_or(Duration::from_millis(200 << tries.min(6)));
            tokio::time::sleep(crate::host::jittered(pause.min(self.patience.pause))).await;
        }
    }

    /// Sends a request; returns the head of the answer.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        match tokio::time::timeout(self.patience.stall, request.send()).await {
            Ok(answer) => answer.map_err(|error| Failure::lost(&error)),
            Err(_) => Err(Failure::stalled(self.patience)),
        }
    }

    /// Learns from a refusal what the registry wants to see.
    async fn say_who(&self, answer: &Response) -> Result<(), Failure> {
        let asked: Vec<_> =
            answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok()).collect();
        let after = |scheme: &str| {
            asked.iter().find_map(|asked| {
                let (named, rest) = asked.split_once(' ')?;
                named.eq_ignore_ascii_case(scheme).then_some(rest)
            })
        };
        let new = if let Some(challenge) = after("Bearer") {
            format!("Bearer {}", self.token(challenge).await?)
        } else if after("Basic").is_some()
            && let Some(credentials) = &self.credentials
        {
            credentials.as_basic()
        } else {
            return Err(Failure::of(answer.status()));
        };
        *self.authorization() = Some(new);
        Ok(())
    }

    /// Gets a token where the registry says that there are some.
    async fn token(&self, challenge: &str) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let said = parameters(challenge);
        let find = |name: &str| said.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let not = |why: &str| Failure::new(Trouble::Refused, why.to_owned());
        let realm = find("realm").and_then(|realm| Url::parse(realm).ok());
        let mut url = realm.ok_or_else(|| not("the registry does not say where it gives out tokens"))?;
        let is_near = url.host_str().is_some_and(is_this_machine);
        if url.scheme() != "https" && !is_near {
            return Err(not("the registry gives out tokens without encryption"));
        }
        let scope = find("scope").map_or_else(|| format!("repository:{}:pull", self.repository.path), str::to_owned);
        url.query_pairs_mut().extend_pairs(find("service").map(|service| ("service", service)));
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.client.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, credentials.as_basic());
        }
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(Failure::of(answer.status()));
        }
        let bytes = self.whole(answer, TOKEN_MAX_BYTES).await?;
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| not("what should be a token cannot be understood"))
    }

    async fn whole(&self, mut answer: Response, most: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut answer).await? {
            if bytes.len() + piece.len() > most {
                return Err(Failure::new(Trouble::Other, format!("the answer has more than {most} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn piece(&self, answer: &mut Response) -> Result<Option<Vec<u8>>, Failure> {
        match tokio::time::timeout(self.patience.stall, answer.chunk()).await {
            Ok(Ok(piece)) => Ok(piece.map(|piece| piece.to_vec())),
            Ok(Err(error)) => Err(Failure::lost(&error)),
            Err(_) => Err(Failure::stalled(self.patience)),
        }
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for Registry {
    fn name(&self) -> String {
        self.repository.name.clone()
    }

    fn manifest(&self, digest: Option<&ImageDigest>) -> Result<Vec<u8>, ImageError> {
        let asked = digest.map_or_else(|| self.repository.asked(), ToString::to_string);
        let url = self.url("manifests", &asked);
        let accept = MANIFEST_TYPES.join(", ");
        let answer = self.runtime.block_on(async {
            let answer = self.ask(&url, Some(&accept), 0).await?;
            self.whole(answer, MANIFEST_MAX_BYTES).await
        });
        answer.map_err(|failure| failure.of_what(format!("`{}` from `{}`", asked, self.repository.name)))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Blob<'_>, ImageError> {
        // Only a digest that is one becomes a part of an address.
        let digest = descriptor.digest()?;
        let url = self.url("blobs", &digest.to_string());
        let what = format!("`sha256:{}` from `{}`", digest.short(), self.repository.name);
        let answer = self.runtime.block_on(self.ask(&url, None, 0));
        let answer = answer.map_err(|failure| failure.of_what(what.clone()))?;
        let left = self.patience.tries;
        let bytes = answer.content_length();
        let reading = Reading { registry: self, url, what, answer, piece: Vec::new(), at: 0, received: 0, left };
        Ok(Blob { reader: Box::new(reading), bytes })
    }
}

/// The bytes of a layer as they come.
struct Reading<'a> {
    registry: &'a Registry,
    url: String,
    what: String,
    answer: Response,
    piece: Vec<u8>,
    /// How much of the piece is read.
    at: usize,
    /// How many bytes came in all.
    received: u64,
    /// How many times a connection may still be lost.
    left: u32,
}

impl Reading<'_> {
    /// Waits for the next piece; one that is empty is the end.
    fn next_piece(&mut self) -> Result<(), Failure> {
        let registry = self.registry;
        loop {
            match registry.runtime.block_on(registry.piece(&mut self.answer)) {
                // No end.
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(piece) => {
                    self.piece = piece.unwrap_or_default();
                    self.at = 0;
                    self.received += self.piece.len() as u64;
                    return Ok(());
                }
                Err(failure) if failure.may_pass && self.left > 0 => {
                    self.left -= 1;
                    let answer = registry.runtime.block_on(registry.ask(&self.url, None, self.received))?;
                    if self.received > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
                        return Err(failure);
                    }
                    self.answer = answer;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let next = self.next_piece();
            next.map_err(|failure| io::Error::other(failure.of_what(self.what.clone())))?;
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Why an answer did not come, or was no.
struct Failure {
    trouble: Trouble,
    why: String,
    /// Whether it makes sense to ask again.
    may_pass: bool,
}

impl Failure {
    fn new(trouble: Trouble, why: String) -> Self {
        Self { trouble, why, may_pass: false }
    }

    fn of(status: StatusCode) -> Self {
        let trouble = match status {
            StatusCode::NOT_FOUND => Trouble::Missing,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Refused,
            _ => Trouble::Other,
        };
        let name = status.canonical_reason().map(|name| format!(", {name}")).unwrap_or_default();
        let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Self { trouble, why: format!("the registry answered {}{name}", status.as_u16()), may_pass }
    }

    fn lost(error: &reqwest::Error) -> Self {
        // What cannot be resolved or has no one listening will not be there in a moment either.
        Self { trouble: Trouble::Unreachable, why: root(error), may_pass: !error.is_connect() && !error.is_builder() }
    }

    fn stalled(patience: Patience) -> Self {
        let why = format!("nothing moved for {} seconds", patience.stall.as_secs());
        Self { trouble: Trouble::Unreachable, why, may_pass: true }
    }

    fn of_what(self, what: String) -> ImageError {
        ImageError::Fetch { what, trouble: self.trouble, source: self.why.into() }
    }
}

/// Returns whether a host, perhaps with a port, is this machine itself.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns how long the registry asks to wait.
fn pause_of(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns the parameters of a challenge: `name="value",name=value`.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, behind) = match rest.strip_prefix('"') {
            Some(rest) => rest.split_once('"').unwrap_or((rest, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        found.push((name, value.trim().to_owned()));
        text = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_understood_with_commas_in_its_values() {
        let told = parameters(r#"realm="https://x/token",service=reg.x, scope="repository:a/b:pull,push""#);
        let expected = [("realm", "https://x/token"), ("service", "reg.x"), ("scope", "repository:a/b:pull,push")];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parameters(""), []);
        assert_eq!(parameters("realm=\"x").len(), 1);
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "[::1]:5000"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["docker.io", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1:5000"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
