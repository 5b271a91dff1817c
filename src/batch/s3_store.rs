//! A bucket of images, in any store that speaks S3.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;

use super::key::Key;
use super::store::{Claim, Store};
use crate::error::{Error, Result};

/// Objects cannot be appended to: a manifest is written anew, no more often than this.
const MANIFEST_EVERY: Duration = Duration::from_secs(30);

/// The longest time that a request is retried for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket, or a part of one.
pub struct S3Store {
    store: AmazonS3,
    runtime: Runtime,
    /// `s3://bucket/prefix`, without a slash at its end.
    address: String,
    prefix: String,
    /// The names that were listed or stored, which need not be asked for.
    known: Mutex<HashSet<String>>,
    appended: Mutex<HashMap<String, Appended>>,
}

/// The content of a manifest, which may not be stored yet.
struct Appended {
    text: String,
    is_stored: bool,
    stored: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl S3Store {
    /// Makes the store of an address `s3://bucket/prefix`. `variables` are those of the environment that begin with `AWS_`:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on. Nothing is
    /// sent.
    ///
    /// # Errors
    /// [`Error::Input`] naming `--out` for an address without a bucket or variables that contradict each other,
    /// [`Error::Io`] if the system refuses what the network needs.
    pub fn new(address: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let invalid = |problem: String| Error::input("--out", problem, "write s3://bucket/prefix");
        let rest =
            address.strip_prefix("s3://").ok_or_else(|| invalid(format!("{address} is not an address of S3")))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid(format!("{address} names no bucket")));
        }
        let retry = RetryConfig { max_retries: 6, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_retry(retry);
        for (name, value) in variables {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                // An endpoint without TLS is one that the user has named so.
                if value.starts_with("http://") {
                    builder = builder.with_allow_http(true);
                }
                builder = builder.with_config(key, value);
            }
        }
        // Another part of the program may have chosen the provider before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = builder.with_bucket_name(bucket).build().map_err(|error| invalid(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            store,
            runtime: runtime.map_err(|error| Error::io(Path::new(address), "opening", error))?,
            address: address.trim_end_matches('/').to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            known: Mutex::default(),
            appended: Mutex::default(),
        })
    }

    fn path(&self, name: &str) -> ObjectPath {
        ObjectPath::from(if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) })
    }

    fn failed(&self, name: &str, action: &'static str, error: object_store::Error) -> Error {
        Error::io(Path::new(&self.place(name)), action, io::Error::other(error))
    }

    /// The names below a folder, and its folders.
    fn list_folder(&self, name: &str) -> Result<(Vec<String>, Vec<String>)> {
        let path = self.path(name);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&path)));
        let listed = listed.map_err(|error| self.failed(name, "listing", error))?;
        let last = |path: &ObjectPath| path.filename().unwrap_or_default().to_owned();
        // An object without bytes is one that another program made.
        let objects = listed.objects.iter().filter(|object| object.size > 0).map(|object| last(&object.location));
        Ok((objects.collect(), listed.common_prefixes.iter().map(last).collect()))
    }

    fn store_text(&self, name: &str, appended: &mut Appended) -> Result<()> {
        self.put(name, appended.text.as_bytes())?;
        (appended.is_stored, appended.stored) = (true, Instant::now());
        Ok(())
    }
}

impl Store for S3Store {
    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn prepare(&self) -> Result<()> {
        // The manifest is the first object that is written; that shows if the bucket takes any.
        Ok(())
    }

    fn list(&self) -> Result<HashSet<String>> {
        let is_of_images = |folder: &String| folder.len() == 2 && folder.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut names = HashSet::new();
        for folder in self.list_folder("")?.1.iter().filter(|folder| is_of_images(folder)) {
            names.extend(self.list_folder(folder)?.0.into_iter().map(|name| format!("{folder}/{name}")));
        }
        lock(&self.known).clone_from(&names);
        Ok(names)
    }

    fn has_whole(&self, name: &str) -> Result<bool> {
        // Objects are stored whole or not at all.
        if lock(&self.known).contains(name) {
            return Ok(true);
        }
        match self.runtime.block_on(self.store.head(&self.path(name))) {
            Ok(object) => Ok(object.size > 0),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(name, "reading", error)),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let read = self.runtime.block_on(async { self.store.get(&path).await?.bytes().await });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, "reading", error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let put = self.runtime.block_on(self.store.put(&self.path(name), bytes.to_vec().into()));
        put.map_err(|error| self.failed(name, "writing", error))?;
        lock(&self.known).insert(name.to_owned());
        Ok(())
    }

    fn append(&self, name: &str, text: &str) -> Result<()> {
        let mut all = lock(&self.appended);
        if let Some(appended) = all.get_mut(name) {
            appended.text.push_str(text);
            appended.is_stored = false;
            return if appended.stored.elapsed() < MANIFEST_EVERY { Ok(()) } else { self.store_text(name, appended) };
        }
        let before = self.get(name)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&before).into_owned() + text;
        let mut appended = Appended { text, is_stored: false, stored: Instant::now() };
        self.store_text(name, &mut appended)?;
        all.insert(name.to_owned(), appended);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        // What is appended after this begins with what is stored then.
        for (name, mut appended) in lock(&self.appended).drain() {
            if !appended.is_stored {
                self.store_text(&name, &mut appended)?;
            }
        }
        Ok(())
    }

    fn claim(&self, _key: Key) -> Option<Claim> {
        Some(Claim::free())
    }
}
