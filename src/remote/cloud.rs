//! A remote in an object store, or on a web server that is only read.
//!
//! The rest of the program waits for what it asks; so does this, over a small
//! runtime that each bucket has for itself. Credentials come from where each
//! service keeps them, and nothing that is said when something fails was said
//! by somebody who knows them: see `said`.

mod amazon;
mod azure;
mod google;
mod said;
mod wire;

use std::fmt;
use std::future::Future;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Error as StoreError, GetOptions, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, PutPayloadMut, RetryConfig,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::said::{Said, told};
use self::wire::{Connector, Seen, watching};
pub(super) use self::wire::{provide_encryption, root};
use super::address::Address;
use super::bucket::{Body, Bucket, BucketError, Listed, Trouble};
use super::surroundings::{Patience, Surroundings};
use crate::host::Time;

/// What is not longer goes in one request, what is longer in parts of this size.
const PART_BYTES: u64 = 8 << 20;
/// No service takes more parts of one file than ten thousand.
const MOST_PARTS: u64 = 9_000;
/// So many parts of one file are on their way at once. Each lies in memory.
const PARTS_AT_ONCE: usize = 2;
/// A part is handed on in slices of this size, so that its progress is seen.
const SLICE_BYTES: usize = 64 << 10;
/// Threads of each bucket.
const THREADS: usize = 2;

/// Files in a bucket of an object store, or below an address on the web.
pub struct Cloud {
    /// Asks again by itself.
    store: Arc<dyn ObjectStore>,
    /// Asks once.
    once: Arc<dyn ObjectStore>,
    prefix: String,
    is_read_only: bool,
    patience: Patience,
    // Last, so that whatever still uses it goes first.
    runtime: Runtime,
}

impl fmt::Debug for Cloud {
    /// Leaves out what it is asked with, which has keys in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Cloud {
    /// Returns the files at an address. Nothing is asked of the other side yet.
    ///
    /// Costs two threads, as long as it is kept.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if the address or the settings around it cannot be used; [`Trouble::Unsupported`] if it is no
    /// address of an object store.
    pub fn open(address: &Address, surroundings: &Surroundings<'_>) -> Result<Self, BucketError> {
        let patience = surroundings.patience;
        let (store, once) = (
            service(address, surroundings, &patiently(patience))?,
            service(address, surroundings, &RetryConfig { max_retries: 0, ..patiently(patience) })?,
        );
        let prefix = match address {
            Address::S3 { prefix, .. } | Address::Google { prefix, .. } | Address::Azure { prefix, .. } => prefix,
            _ => "",
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("pv-remote")
            .enable_all()
            .build()
            .map_err(BucketError::on("reach", "", Trouble::Other))?;
        let prefix = prefix.to_owned();
        Ok(Self { store, once, prefix, is_read_only: address.is_read_only(), patience, runtime })
    }

    fn key(&self, action: &'static str, name: &str) -> Result<Key, BucketError> {
        let path = [self.prefix.as_str(), name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        // What the error of the path says is about names alone.
        Key::parse(path.join("/")).map_err(|error| BucketError::on(action, name, Trouble::Other)(error.to_string()))
    }

    /// Waits for an answer.
    fn ask<T>(
        &self,
        action: &'static str,
        name: &str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Box<Answer>> {
        let seen = Seen::default();
        self.runtime
            .block_on(watching(seen.clone(), asked))
            .map_err(|error| Box::new(Answer { told: told(action, name, &error, &seen), code: seen.code(), error }))
    }

    /// Fetches a file, or a part of it, and hands on what is wanted of it.
    fn fetch(&self, name: &str, options: GetOptions, wanted: Wanted, take: Take<'_>) -> Result<Fitness, Box<Answer>> {
        let key = self.key("read", name).map_err(Answer::of_settings)?;
        self.ask("read", name, async { hand_on(self.store.get_opts(&key, options).await?, wanted, take).await })
    }

    /// Fetches a whole file of at most so many bytes.
    fn fetch_whole(&self, name: &str, most_bytes: u64) -> Result<Result<Vec<u8>, Unfit>, Box<Answer>> {
        let mut bytes = Vec::new();
        let wanted = Wanted { skip: 0, bytes: most_bytes, and_more: false };
        let fitness = self.fetch(name, GetOptions::default(), wanted, &mut |piece| {
            bytes.extend_from_slice(piece);
            true
        })?;
        Ok(fitness.map(|()| bytes))
    }

    /// Hands on these bytes of a file, out of one answer.
    fn stream_once(&self, name: &str, span: Range<u64>, take: Take<'_>) -> Result<(), BucketError> {
        let bytes = span.end - span.start;
        let ranged = GetOptions { range: Some(span.clone().into()), ..GetOptions::default() };
        let fitness = match self.fetch(name, ranged, Wanted { skip: 0, bytes, and_more: false }, take) {
            // It knows no ranges: what is before goes by, and what is behind is not waited for.
            Err(answer) if matches!(answer.error, StoreError::NotSupported { .. }) => {
                self.fetch(name, GetOptions::default(), Wanted { skip: span.start, bytes, and_more: true }, take)?
            }
            fitness => fitness?,
        };
        fitness.map_err(|unfit| unfit.on(name, bytes))
    }

    /// Returns whether a file is there and has just these bytes.
    fn holds_just(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        let most_bytes = bytes.len() as u64;
        match self.fetch_whole(name, most_bytes) {
            Ok(Ok(found)) => Ok(found == bytes),
            Ok(Err(Unfit::Long)) => Ok(false),
            Ok(Err(unfit)) => Err(unfit.on(name, most_bytes)),
            Err(answer) if answer.is_no_file() => Ok(false),
            Err(answer) => Err(answer.told),
        }
    }

    fn refuse_to_write(&self, action: &'static str, name: &str) -> Result<(), BucketError> {
        if self.is_read_only {
            return Err(BucketError::on(action, name, Trouble::Unsupported)("a web server is only read"));
        }
        Ok(())
    }

    fn write_parts(&self, name: &str, key: &Key, body: &dyn Body) -> Result<(), BucketError> {
        let mut upload = self.ask("write", name, self.store.put_multipart(key))?;
        let sent = self
            .send_parts(name, &mut *upload, body)
            .and_then(|()| Ok(self.ask("write", name, upload.complete()).map(drop)?));
        if sent.is_err() {
            // If that fails too, its parts stay until the service clears them away; the file is not there either way.
            let aborted = async { tokio::time::timeout(self.patience.stall, upload.abort()).await.ok() };
            self.runtime.block_on(aborted);
        }
        sent
    }

    fn send_parts(&self, name: &str, upload: &mut dyn MultipartUpload, body: &dyn Body) -> Result<(), BucketError> {
        let (seen, mut reader, mut left) = (Seen::default(), body.reader(), body.bytes());
        let part_bytes = PART_BYTES.max(body.bytes().div_ceil(MOST_PARTS));
        // Whatever is on its way ends with this.
        let mut on_their_way = JoinSet::new();
        let wait_for_one = |on_their_way: &mut JoinSet<object_store::Result<()>>| match self
            .runtime
            .block_on(on_their_way.join_next())
        {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(told("write", name, &error, &seen)),
            Some(Err(error)) => Err(BucketError::on("write", name, Trouble::Other)(error)),
        };
        while left > 0 {
            if on_their_way.len() >= PARTS_AT_ONCE {
                wait_for_one(&mut on_their_way)?;
            }
            let bytes = left.min(part_bytes);
            let part = take(name, &mut reader, bytes)?;
            on_their_way.spawn_on(watching(seen.clone(), upload.put_part(part)), self.runtime.handle());
            left -= bytes;
        }
        expect_end(name, &mut reader)?;
        while !on_their_way.is_empty() {
            wait_for_one(&mut on_their_way)?;
        }
        Ok(())
    }
}

impl Bucket for Cloud {
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError> {
        if self.is_read_only {
            return Err(BucketError::on("list", directory, Trouble::Unsupported)("a web server does not list"));
        }
        let key = self.key("list", directory)?;
        let prefix = Some(&key).filter(|key| !key.as_ref().is_empty());
        let listed = self.ask("list", directory, self.store.list_with_delimiter(prefix))?;
        let listed = listed.objects.into_iter().filter_map(|object| {
            let written = Some(Time { epoch_ms: object.last_modified.timestamp_millis() });
            Some(Listed { name: object.location.filename()?.to_owned(), bytes: object.size, written })
        });
        Ok(listed.collect())
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError> {
        match self.fetch_whole(name, most_bytes) {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(unfit)) => Err(unfit.on(name, most_bytes)),
            Err(answer) if answer.is_no_file() => Ok(None),
            Err(answer) => Err(answer.told),
        }
    }

    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError> {
        let mut bytes = Vec::with_capacity(usize::try_from(span.end.saturating_sub(span.start)).unwrap_or_default());
        self.stream_span(name, span, &mut |piece| {
            bytes.extend_from_slice(piece);
            true
        })?;
        Ok(bytes)
    }

    fn stream_span(&self, name: &str, span: Range<u64>, take: Take<'_>) -> Result<(), BucketError> {
        let (mut at, mut tries) = (span.start, 1);
        while at < span.end {
            let before = at;
            let mut is_enough = false;
            let streamed = self.stream_once(name, at..span.end, &mut |piece| {
                at += piece.len() as u64;
                is_enough = !take(piece);
                !is_enough
            });
            match streamed {
                _ if is_enough => break,
                Ok(()) => {}
                // What has come need not come again, for which the answer's own patience is too short where much does.
                Err(error) if error.trouble == Trouble::Unreachable && at > before && tries < self.patience.tries => {
                    tries = if at - before >= PART_BYTES { 1 } else { tries + 1 };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError> {
        self.refuse_to_write("write", name)?;
        let key = self.key("write", name)?;
        if body.bytes() > PART_BYTES {
            return self.write_parts(name, &key, body);
        }
        let mut reader = body.reader();
        let payload = take(name, &mut reader, body.bytes())?;
        expect_end(name, &mut reader)?;
        Ok(self.ask("write", name, self.store.put(&key, payload)).map(drop)?)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        self.refuse_to_write("create", name)?;
        let key = self.key("create", name)?;
        let mut pause = Duration::from_millis(100);
        let mut may_be_ours = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let payload = PutPayload::from(bytes.to_vec());
            let asked = self.once.put_opts(&key, payload, PutMode::Create.into());
            let Err(answer) = self.ask("create", name, asked) else { return Ok(true) };
            let is_in_dispute = answer.code.as_deref() == Some("ConditionalRequestConflict");
            if answer.is_there_already() && !is_in_dispute {
                // An earlier try of ours may have come through, though its answer did not.
                return Ok(may_be_ours && self.holds_just(name, bytes)?);
            }
            let is_worth_another = is_in_dispute || answer.told.trouble == Trouble::Unreachable;
            if !is_worth_another || tries >= self.patience.tries {
                return Err(answer.told);
            }
            may_be_ours |= !is_in_dispute;
            std::thread::sleep(pause.min(self.patience.pause));
            pause *= 2;
        }
    }

    fn remove(&self, name: &str) -> Result<(), BucketError> {
        self.refuse_to_write("remove", name)?;
        let key = self.key("remove", name)?;
        match self.ask("remove", name, self.store.delete(&key)) {
            Err(answer) if answer.is_no_file() => Ok(()),
            removed => Ok(removed?),
        }
    }
}

/// Why an answer was none.
struct Answer {
    told: BucketError,
    code: Option<String>,
    error: StoreError,
}

impl Answer {
    fn of_settings(told: BucketError) -> Box<Self> {
        let source = "its name cannot be used".into();
        Box::new(Self { told, code: None, error: StoreError::Generic { store: "pv", source } })
    }

    /// Returns whether the file is not there, though its bucket is.
    fn is_no_file(&self) -> bool {
        let is_no_bucket = matches!(self.code.as_deref(), Some("NoSuchBucket" | "ContainerNotFound"));
        matches!(self.error, StoreError::NotFound { .. }) && !is_no_bucket
    }

    fn is_there_already(&self) -> bool {
        matches!(self.error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
    }
}

impl From<Box<Answer>> for BucketError {
    fn from(answer: Box<Answer>) -> Self {
        answer.told
    }
}

/// What came is not what was asked for.
enum Unfit {
    Long,
    Short,
}

impl Unfit {
    fn on(&self, name: &str, bytes: u64) -> BucketError {
        let said = match self {
            Self::Long => format!("it is longer than {bytes} bytes"),
            Self::Short => format!("it ended before its {bytes} bytes had come"),
        };
        BucketError::on("read", name, Trouble::Garbled)(Said(said))
    }
}

/// What is taken of an answer.
#[derive(Clone, Copy)]
struct Wanted {
    /// So much goes by first.
    skip: u64,
    /// So much is taken at most.
    bytes: u64,
    /// Whether there may be more than that; it is not waited for.
    and_more: bool,
}

/// Is handed pieces, and returns whether there is to be more.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> bool;
/// Whether an answer was what was asked for.
type Fitness = Result<(), Unfit>;

/// Hands on what is wanted of an answer, of which no more than one piece lies in memory.
async fn hand_on(answer: GetResult, wanted: Wanted, take: Take<'_>) -> object_store::Result<Fitness> {
    let announced = answer.range.end - answer.range.start;
    if !wanted.and_more && announced > wanted.bytes {
        return Ok(Err(Unfit::Long));
    }
    let (mut skip, mut come) = (wanted.skip, 0);
    let mut pieces = answer.into_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let skipped = usize::try_from(skip).unwrap_or(piece.len()).min(piece.len());
        skip -= skipped as u64;
        let taken = &piece[skipped..];
        let room = usize::try_from(wanted.bytes - come).unwrap_or(usize::MAX);
        if taken.len() > room && !wanted.and_more {
            return Ok(Err(Unfit::Long));
        }
        let taken = &taken[..taken.len().min(room)];
        come += taken.len() as u64;
        if (!taken.is_empty() && !take(taken)) || (wanted.and_more && come == wanted.bytes) {
            return Ok(Ok(()));
        }
    }
    let is_short = wanted.and_more || come < announced;
    Ok(if is_short { Err(Unfit::Short) } else { Ok(()) })
}

/// Returns the next `bytes` of what is to be sent.
fn take(name: &str, reader: &mut dyn Read, bytes: u64) -> Result<PutPayload, BucketError> {
    let mut part = PutPayloadMut::new().with_block_size(SLICE_BYTES);
    let mut slice = vec![0; SLICE_BYTES];
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let slice = &mut slice[..left.min(SLICE_BYTES)];
        reader.read_exact(slice).map_err(BucketError::on("write", name, Trouble::Other))?;
        part.extend_from_slice(slice);
        left -= slice.len();
    }
    Ok(part.freeze())
}

/// What says that it has so many bytes must not have more: the file would be another.
fn expect_end(name: &str, reader: &mut dyn Read) -> Result<(), BucketError> {
    let failed = |said: std::io::Error| BucketError::on("write", name, Trouble::Other)(said);
    match reader.read(&mut [0]).map_err(failed)? {
        0 => Ok(()),
        _ => Err(BucketError::on("write", name, Trouble::Other)("there is more of it than was said")),
    }
}

fn patiently(patience: Patience) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100).min(patience.pause),
        max_backoff: patience.pause,
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: patience.tries.saturating_sub(1) as usize, retry_timeout: patience.retry }
}

/// Returns the service at an address.
fn service(
    address: &Address,
    surroundings: &Surroundings<'_>,
    retry: &RetryConfig,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let connector = Connector::new(surroundings.patience);
    let failed = |error: StoreError| told("reach", "", &error, &Seen::default());
    Ok(match address {
        Address::S3 { bucket, .. } => Arc::new(
            amazon::settings(bucket, surroundings)?
                .with_retry(retry.clone())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        Address::Google { bucket, .. } => Arc::new(
            google::settings(bucket, surroundings)
                .with_retry(retry.clone())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        Address::Azure { container, .. } => Arc::new(
            azure::settings(container, surroundings)?
                .with_retry(retry.clone())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        Address::Web { url } => Arc::new(
            HttpBuilder::new()
                .with_url(url)
                .with_client_options(wire::options(url.starts_with("http:")))
                .with_retry(retry.clone())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        Address::Directory(_) | Address::Ssh { .. } => {
            return Err(BucketError::on("reach", "", Trouble::Unsupported)("it is in no object store"));
        }
    })
}
