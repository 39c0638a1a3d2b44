//! Remote objects: HTTP, S3, Google Cloud Storage, and Azure.
//!
//! Every request has a time limit that includes the last byte of its response. It is retried after
//! increasing pauses if that can help. Every response is compared with the state of the object when
//! it was opened, and a change since then is an error. Credentials come from the environment, under
//! the names that the stores' own tools use.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreScheme, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use url::{Position, Url};

use super::Blob;
use super::failure::Failure;
use crate::config::DataConfig;
use crate::error::{Error, Result};

/// Pause before the second try. Each later pause is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Maximum number of bytes per request. The time for a request is limited, so its size must not
/// grow with the object.
const PIECE_BYTES: usize = 8 << 20;

/// How long to wait for a server, and how often to retry.
#[derive(Debug, Clone, Copy)]
struct RetryPolicy {
    tries: u32,
    timeout: Duration,
}

/// The stores used so far, one per host or bucket.
pub(crate) struct Stores {
    retry: RetryPolicy,
    stores: HashMap<String, Arc<dyn ObjectStore>>,
}

/// An object in its store.
#[derive(Debug)]
pub(crate) struct Remote {
    address: PathBuf,
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// Metadata of the object when it was opened.
    opened: ObjectMeta,
    retry: RetryPolicy,
}

/// The location of an object that has not been requested yet.
pub(crate) struct Place {
    address: String,
    store: Arc<dyn ObjectStore>,
    key: Key,
    retry: RetryPolicy,
}

impl Stores {
    pub(crate) fn new(config: &DataConfig) -> Self {
        let timeout = Duration::try_from_secs_f64(config.remote_timeout_s.clamp(0.001, 86_400.0));
        let timeout = timeout.unwrap_or(Duration::from_secs(30)); // NaN
        let retry = RetryPolicy { tries: config.remote_retries.saturating_add(1), timeout };
        Self { retry, stores: HashMap::new() }
    }

    /// Returns the place of the object at a URL, without requesting it.
    ///
    /// # Errors
    /// Returns an error if the URL is of an unknown kind or has a query, or if its store cannot be
    /// set up.
    pub(crate) fn place(&mut self, address: &str) -> Result<Place> {
        let problem = |problem: String| Error::Path { path: address.into(), problem };
        let url = Url::parse(address).map_err(|why| problem(format!("not a valid URL ({why})")))?;
        if url.query().is_some() {
            return Err(problem("URLs with a query (`?...`) are not supported".into()));
        }
        let (scheme, key) = ObjectStoreScheme::parse(&url).map_err(|_| {
            problem("not a URL of a supported scheme (https, http, s3, gs, az)".into())
        })?;
        let base = url[..Position::BeforePath].to_owned();
        let store = match self.stores.get(&base) {
            Some(store) => store.clone(),
            None => {
                let store = connect(scheme, &url, self.retry.timeout).map_err(|why| {
                    problem(format!("cannot set up access to it: {}", one_line(&why)))
                })?;
                self.stores.insert(base, store.clone());
                store
            }
        };
        Ok(Place { address: address.to_owned(), store, key, retry: self.retry })
    }

    /// Lists the URLs of all objects directly under the folder of `address`, which is its part up
    /// to the last `/`.
    ///
    /// # Errors
    /// Returns an error if the store cannot list objects or does not respond.
    pub(crate) fn list(&mut self, address: &str) -> Result<Vec<String>> {
        let folder = &address[..=address.rfind('/').unwrap_or(0)];
        if folder.starts_with("http") {
            let problem = "a web server does not list its files: name them, for example \
                           https://host/train-{0000..0127}.tar";
            return Err(Error::Path { path: address.into(), problem: problem.into() });
        }
        let place = self.place(folder)?;
        let found = place.retry.ask(Path::new(folder), "listing", || async {
            Ok(place.store.list_with_delimiter(Some(&place.key)).await?)
        })?;
        let names = found.objects.iter().filter_map(|object| object.location.filename());
        Ok(names.map(|name| format!("{folder}{name}")).collect())
    }
}

impl Place {
    /// Requests the size of the object.
    ///
    /// # Errors
    /// Returns an error if there is no such object or the server does not respond.
    pub(crate) fn open(self) -> Result<Remote> {
        let Self { store, key, retry, .. } = self;
        let address = PathBuf::from(self.address);
        let options = || GetOptions { head: true, ..GetOptions::default() };
        let opened = retry.ask(&address, "asking for its size", || async {
            Ok(store.get_opts(&key, options()).await?.meta)
        })?;
        Ok(Remote { address, store, key, opened, retry })
    }
}

impl Remote {
    fn read_piece(&self, offset: u64, piece: &mut [u8]) -> std::result::Result<(), Failure> {
        let range = offset..offset + piece.len() as u64;
        // `If-Match` is not used: it never matches weak tags, and some servers ignore it.
        let options = || GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let bytes = self.retry.ask(&self.address, "reading", || async {
            let answer = self.store.get_opts(&self.key, options()).await?;
            if let Some(problem) = difference(&self.opened, &answer.meta) {
                return Err(RequestError::Changed(problem));
            }
            Ok(answer.bytes().await?)
        })?;
        if bytes.len() != piece.len() {
            let problem = format!("received {} bytes instead of {}", bytes.len(), piece.len());
            return Err(Failure::Unread { path: self.address.clone(), problem });
        }
        piece.copy_from_slice(&bytes);
        Ok(())
    }
}

/// Describes how an object differs from the one that was opened.
fn difference(opened: &ObjectMeta, now: &ObjectMeta) -> Option<String> {
    if now.size != opened.size {
        return Some(format!("{} bytes instead of {}", now.size, opened.size));
    }
    match (&opened.e_tag, &now.e_tag) {
        (Some(before), Some(now)) => (before != now).then(|| format!("ETag {now}, was {before}")),
        _ => (opened.last_modified != now.last_modified).then(|| "another date".into()),
    }
}

impl Blob for Remote {
    fn path(&self) -> &Path {
        &self.address
    }

    fn len(&self) -> u64 {
        self.opened.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            self.read_piece(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>> {
        let key = Key::from(format!("{}{suffix}", self.key));
        let answer = self.retry.ask(&self.address, "reading its index", || async {
            match self.store.get_opts(&key, GetOptions::default()).await {
                Ok(answer) => Ok(Some(answer.bytes().await?)),
                // If the user may not list objects, S3 reports a missing one as denied. Access to
                // the shard itself was granted.
                Err(StoreError::NotFound { .. } | StoreError::PermissionDenied { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        });
        Ok(answer?.map(Vec::from))
    }

    fn block(&self) -> usize {
        256 << 10
    }
}

/// Why a request failed.
enum RequestError {
    Store(StoreError),
    /// The object differs from the one that was opened.
    Changed(String),
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl RetryPolicy {
    /// Sends `request` for the object at `address` until it succeeds, cannot succeed, or was tried
    /// often enough. `what` describes the request in messages.
    fn ask<T, F>(
        &self,
        address: &Path,
        what: &str,
        request: impl Fn() -> F,
    ) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, RequestError>>,
    {
        let path = || address.to_path_buf();
        let unread = |problem: String| Failure::Unread { path: path(), problem };
        let runtime = runtime().map_err(|error| unread(error.to_string()))?;
        let (mut pause, mut tried) = (FIRST_PAUSE, 0);
        loop {
            let limited = async { tokio::time::timeout(self.timeout, request()).await };
            let why = match runtime.block_on(limited) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(RequestError::Changed(problem))) => {
                    return Err(Failure::Changed { path: path(), problem });
                }
                Ok(Err(RequestError::Store(error))) if is_final(&error) => {
                    return Err(unread(one_line(&error)));
                }
                Ok(Err(RequestError::Store(error))) => one_line(&error),
                Err(_) => format!("no complete response within {} s", self.timeout.as_secs_f64()),
            };
            tried += 1;
            if tried >= self.tries.max(1) {
                return Err(unread(format!("{what} failed on attempt {tried}: {why}")));
            }
            std::thread::sleep(pause.mul_f64(jitter()));
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

/// Returns whether a retry cannot help.
fn is_final(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::NotSupported { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::UnknownConfigurationKey { .. }
    )
}

/// Formats an error and its causes in one line. Unlike [`base::error_chain`], it keeps all lines of a
/// message, because the answer of a server may give the reason in its last ones.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a factor between 0.5 and 1.5 for pauses, so that many readers do not retry at the same
/// time. It comes from the clock, not from the run's random numbers, because it affects no result.
fn jitter() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    0.5 + f64::from(now.subsec_nanos() % 1000) / 1000.0
}

/// Returns the runtime whose threads wait for servers. It is started with the first request.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Another part of the program may already have installed a provider, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("data-remote")
            .enable_all()
            .build()
    });
    runtime.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

/// Returns settings of all clients, in addition to those from the environment. These time limits
/// are looser than our own for a whole request ([`RetryPolicy::ask`]), which is the one that
/// counts.
fn client_settings(timeout: Duration) -> [(ClientConfigKey, String); 3] {
    let seconds = timeout.as_secs().saturating_add(1);
    [
        (ClientConfigKey::ConnectTimeout, format!("{seconds} seconds")),
        (ClientConfigKey::ReadTimeout, format!("{} seconds", 2 * seconds)),
        (ClientConfigKey::Timeout, format!("{} seconds", 2 * seconds)),
    ]
}

fn connect(
    scheme: ObjectStoreScheme,
    url: &Url,
    timeout: Duration,
) -> std::result::Result<Arc<dyn ObjectStore>, StoreError> {
    runtime().map_err(|source| StoreError::Generic { store: "remote", source: source.into() })?;
    // We retry requests ourselves ([`RetryPolicy`]), so that retries cover the whole response and
    // are counted once.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let settings = client_settings(timeout).into_iter();
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str());
            let set = |b: AmazonS3Builder, (k, v)| b.with_config(AmazonS3ConfigKey::Client(k), v);
            Arc::new(settings.fold(builder, set).with_retry(retry).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            let set =
                |b: GoogleCloudStorageBuilder, (k, v)| b.with_config(GoogleConfigKey::Client(k), v);
            Arc::new(settings.fold(builder, set).with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            let set =
                |b: MicrosoftAzureBuilder, (k, v)| b.with_config(AzureConfigKey::Client(k), v);
            Arc::new(settings.fold(builder, set).with_retry(retry).build()?)
        }
        ObjectStoreScheme::Http => {
            let builder = HttpBuilder::new().with_url(&url[..Position::BeforePath]);
            let builder = builder.with_config(ClientConfigKey::AllowHttp, "true");
            let set = |b: HttpBuilder, (k, v)| b.with_config(k, v);
            Arc::new(settings.fold(builder, set).with_retry(retry).build()?)
        }
        _ => {
            let source = "not one of https, http, s3, gs, az".into();
            return Err(StoreError::Generic { store: "remote", source });
        }
    })
}
