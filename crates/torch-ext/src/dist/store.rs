//! The key-value store through which the processes of a run find each other.

use std::ffi::CString;
use std::time::Duration;

use crate::{Error, Result, ffi};

/// A connection to a TCP store.
#[derive(Debug)]
pub(super) struct Store(*mut ffi::Store);

// SAFETY: c10d's client guards its connection with a lock and is not tied to a thread.
unsafe impl Send for Store {}

impl Store {
    /// Connects to an existing store.
    pub(super) fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        Self::new(host, port, false, timeout)
    }

    /// Opens the store in this process, on all addresses of its machine, and connects to it.
    pub(super) fn open(port: u16, timeout: Duration) -> Result<Self> {
        Self::new("127.0.0.1", port, true, timeout)
    }

    fn new(host: &str, port: u16, serves: bool, timeout: Duration) -> Result<Self> {
        let host = text("host", host)?;
        let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let (serves, mut store) = (i32::from(serves), std::ptr::null_mut());
        // SAFETY: `host` outlives the call; `store` is written before it returns.
        unsafe {
            let made = ffi::simdino_store_new(host.as_ptr(), port, serves, timeout, &mut store);
            ffi::check("connect to the store", made)?;
        }
        Ok(Self(store))
    }

    /// Returns the pointer for the shim, valid while `self` lives.
    pub(super) fn as_ptr(&self) -> *mut ffi::Store {
        self.0
    }

    /// Writes a key.
    pub(super) fn set(&self, key: &str, value: &str) -> Result<()> {
        let key = text("key", key)?;
        // SAFETY: the store lives as long as `self`; key and value outlive the call.
        unsafe {
            let (data, len) = (value.as_ptr(), value.len());
            ffi::check("set", ffi::simdino_store_set(self.0, key.as_ptr(), data, len))
        }
    }

    /// Reads a key, waiting until it exists.
    pub(super) fn get(&self, key: &str) -> Result<String> {
        let key = text("key", key)?;
        let (mut data, mut len) = (std::ptr::null(), 0);
        // SAFETY: as above; what `data` points to is copied before this thread's next call.
        let bytes = unsafe {
            let got = ffi::simdino_store_get(self.0, key.as_ptr(), &mut data, &mut len);
            ffi::check("get", got)?;
            if len == 0 { &[] } else { std::slice::from_raw_parts(data, len) }
        };
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Adds to a number, which starts at 0, and returns the sum.
    pub(super) fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = text("key", key)?;
        let mut sum = 0;
        // SAFETY: as above.
        unsafe {
            let added = ffi::simdino_store_add(self.0, key.as_ptr(), amount, &mut sum);
            ffi::check("add", added)?;
        }
        Ok(sum)
    }

    /// Returns whether a key exists.
    pub(super) fn has(&self, key: &str) -> Result<bool> {
        let key = text("key", key)?;
        let mut there = 0;
        // SAFETY: as above.
        unsafe { ffi::check("check", ffi::simdino_store_has(self.0, key.as_ptr(), &mut there))? };
        Ok(there != 0)
    }

    /// Reads a key without waiting; `None` if it does not exist.
    pub(super) fn find(&self, key: &str) -> Result<Option<String>> {
        if self.has(key)? { self.get(key).map(Some) } else { Ok(None) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `connect`, and freed nowhere else.
        unsafe { ffi::simdino_store_free(self.0) };
    }
}

fn text(what: &'static str, value: &str) -> Result<CString> {
    let message = "it contains a NUL byte".to_owned();
    CString::new(value).map_err(|_| Error::Torch { what, message })
}
