//! Objects behind an address: HTTP, S3, Google Cloud Storage, Azure.
//!
//! Every request has a time limit that includes its answer's last byte, and is tried again, after
//! growing pauses, where that can help. Reads ask for the object that was there when it was opened:
//! one that has changed since is an error. Credentials come from the environment, under the names
//! that the stores' own tools use.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreScheme,
    RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use url::{Position, Url};

use super::Blob;
use crate::config::DataConfig;
use crate::error::{Error, Result};

/// Pause before the second try; each later one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How long a server is waited for, and how often.
#[derive(Debug, Clone, Copy)]
struct Patience {
    tries: u32,
    timeout: Duration,
}

/// The stores that were asked so far, one a host or bucket.
pub(crate) struct Stores {
    patience: Patience,
    stores: HashMap<String, Arc<dyn ObjectStore>>,
}

/// An object in its store.
#[derive(Debug)]
pub(crate) struct Remote {
    address: PathBuf,
    store: Arc<dyn ObjectStore>,
    key: Key,
    len: u64,
    e_tag: Option<String>,
    patience: Patience,
}

/// Where an object is, not yet asked for.
pub(crate) struct Place {
    address: String,
    store: Arc<dyn ObjectStore>,
    key: Key,
    patience: Patience,
}

impl Stores {
    pub(crate) fn new(config: &DataConfig) -> Self {
        let timeout = Duration::from_secs_f64(config.remote_timeout_s.clamp(0.001, 86_400.0));
        let patience = Patience { tries: config.remote_retries.saturating_add(1), timeout };
        Self { patience, stores: HashMap::new() }
    }

    /// The object at an address.
    ///
    /// # Errors
    /// It is no address of a kind that is known, or its store cannot be set up.
    pub(crate) fn place(&mut self, address: &str) -> Result<Place> {
        let problem = |problem: String| Error::Path { path: address.into(), problem };
        let url = Url::parse(address).map_err(|why| problem(format!("not an address ({why})")))?;
        if url.query().is_some() {
            return Err(problem("addresses with a query (`?...`) cannot be read".into()));
        }
        let (scheme, key) = ObjectStoreScheme::parse(&url).map_err(|_| {
            problem("not an address of a known kind (https, http, s3, gs, az)".into())
        })?;
        let base = url[..Position::BeforePath].to_owned();
        let store = match self.stores.get(&base) {
            Some(store) => store.clone(),
            None => {
                let options = client_options(self.patience.timeout);
                let store = connect(scheme, &url, options)
                    .map_err(|why| problem(format!("cannot set up its store: {}", first(&why))))?;
                self.stores.insert(base, store.clone());
                store
            }
        };
        Ok(Place { address: address.to_owned(), store, key, patience: self.patience })
    }

    /// The addresses of all objects directly under the one that `address` names, up to its last `/`.
    ///
    /// # Errors
    /// The store cannot list, or does not answer.
    pub(crate) fn list(&mut self, address: &str) -> Result<Vec<String>> {
        let folder = &address[..=address.rfind('/').unwrap_or(0)];
        if folder.starts_with("http") {
            let problem = "a web server cannot be asked for its files: name them, such as \
                           https://host/train-{0000..0127}.tar";
            return Err(Error::Path { path: address.into(), problem: problem.into() });
        }
        let place = self.place(folder)?;
        let found = place
            .patience
            .ask("listing", || async { place.store.list_with_delimiter(Some(&place.key)).await });
        let found = found.map_err(|source| place.failed("list", source))?;
        let names = found.objects.iter().filter_map(|object| object.location.filename());
        Ok(names.map(|name| format!("{folder}{name}")).collect())
    }
}

impl Place {
    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io { action, path: PathBuf::from(&self.address), source }
    }

    /// Asks for the object's size.
    ///
    /// # Errors
    /// There is none, or the server does not answer.
    pub(crate) fn open(self) -> Result<Remote> {
        let options = || GetOptions { head: true, ..GetOptions::default() };
        let answer = self.patience.ask("asking for its size", || async {
            self.store.get_opts(&self.key, options()).await
        });
        let meta = answer.map_err(|source| self.failed("open", source))?.meta;
        Ok(Remote {
            address: self.address.into(),
            store: self.store,
            key: self.key,
            len: meta.size,
            e_tag: meta.e_tag,
            patience: self.patience,
        })
    }
}

impl Blob for Remote {
    fn path(&self) -> &Path {
        &self.address
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let options = || GetOptions {
            range: Some(GetRange::Bounded(offset..end)),
            if_match: self.e_tag.clone(),
            ..GetOptions::default()
        };
        let (size, bytes) = self.patience.ask("reading", || async {
            let answer = self.store.get_opts(&self.key, options()).await?;
            Ok((answer.meta.size, answer.bytes().await?))
        })?;
        if size != self.len || bytes.len() != buffer.len() {
            return Err(changed());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>> {
        let key = Key::from(format!("{}{suffix}", self.key));
        let answer = self.patience.ask("reading its index", || async {
            match self.store.get_opts(&key, GetOptions::default()).await {
                Ok(answer) => answer.bytes().await.map(Some),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(answer?.map(Vec::from))
    }

    fn block(&self) -> usize {
        256 << 10
    }
}

fn changed() -> io::Error {
    io::Error::other("it has changed on its server since it was opened: start anew")
}

impl Patience {
    /// Does `request` until it succeeds, cannot succeed, or was tried often enough.
    fn ask<T, F>(&self, what: &str, request: impl Fn() -> F) -> io::Result<T>
    where
        F: Future<Output = std::result::Result<T, StoreError>>,
    {
        let runtime = runtime()?;
        let mut pause = FIRST_PAUSE;
        for left in (0..self.tries.max(1)).rev() {
            let limited = async { tokio::time::timeout(self.timeout, request()).await };
            let why = match runtime.block_on(limited) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(StoreError::Precondition { .. })) => return Err(changed()),
                Ok(Err(error)) if is_final(&error) => return Err(io::Error::other(first(&error))),
                Ok(Err(error)) => first(&error),
                Err(_) => format!("no whole answer within {} s", self.timeout.as_secs_f64()),
            };
            if left == 0 {
                let tries = self.tries.max(1);
                return Err(io::Error::other(format!(
                    "{what} failed {tries} times, the last time: {why} (see data.remote_retries \
                     and data.remote_timeout_s)"
                )));
            }
            std::thread::sleep(pause.mul_f64(jitter()));
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        Err(io::ErrorKind::Other.into())
    }
}

/// Whether asking again cannot help.
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

/// An error and its causes in one line.
fn first(error: &dyn std::error::Error) -> String {
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

/// Half to one and a half, so that many readers do not come back all at once. Not a random draw of
/// the run: it changes no result.
fn jitter() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    0.5 + f64::from(now.subsec_nanos() % 1000) / 1000.0
}

/// The threads that wait for servers, started with the first request.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Another part of the program may have chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("data-remote")
            .enable_all()
            .build()
    });
    runtime.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

/// The limit for a whole request is ours ([`Patience::ask`]), so that there is one.
fn client_options(timeout: Duration) -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(timeout)
}

fn connect(
    scheme: ObjectStoreScheme,
    url: &Url,
    options: ClientOptions,
) -> std::result::Result<Arc<dyn ObjectStore>, StoreError> {
    runtime().map_err(|source| StoreError::Generic { store: "remote", source: source.into() })?;
    // Trying again is ours: the store's own tries do not see an answer that is cut off.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str());
            Arc::new(builder.with_client_options(options).with_retry(retry).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_client_options(options).with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_client_options(options).with_retry(retry).build()?)
        }
        ObjectStoreScheme::Http => {
            let builder = HttpBuilder::new().with_url(&url[..Position::BeforePath]);
            let options = options.with_allow_http(true);
            Arc::new(builder.with_client_options(options).with_retry(retry).build()?)
        }
        _ => {
            let source = "not one of https, http, s3, gs, az".into();
            return Err(StoreError::Generic { store: "remote", source });
        }
    })
}
