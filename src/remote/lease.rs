//! The word of whoever pushes: what was condemned when it began.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::RemoteError;
use super::bucket::Bucket;
use super::collect::{LEASE_MS, LEASES, condemned};
use crate::hash::Digest;
use crate::host::{self, Stopwatch, Time};

/// A lease of this process, renewed while it pushes and given back in the end.
pub(super) struct Lease<'a> {
    bucket: &'a dyn Bucket,
    file: String,
    text: String,
    renewed: Mutex<Stopwatch>,
}

impl<'a> Lease<'a> {
    /// Takes a lease that knows of these condemnations.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Changed`] if something else was condemned meanwhile: whoever looks again finds it absent.
    pub(super) fn take(bucket: &'a dyn Bucket, known: &BTreeSet<String>) -> Result<Self, RemoteError> {
        let who = format!("{} {} {}", host::hostname(), std::process::id(), Time::now().epoch_ms);
        let file = format!("{LEASES}/{}", Digest::of(who.as_bytes()).short());
        let lines: Vec<_> = known.iter().cloned().chain([String::new()]).collect();
        let lease = Self { bucket, file, text: lines.join("\n"), renewed: Mutex::new(Stopwatch::start()) };
        bucket.write(&lease.file, &lease.text.as_bytes())?;
        // In this order: whoever condemns something from now on sees the lease.
        let (_, now) = condemned(bucket)?;
        if now.is_subset(known) { Ok(lease) } else { Err(RemoteError::Changed) }
    }

    /// Renews the lease when it is time. One that cannot be renewed runs out; until then another attempt is made.
    pub(super) fn renew(&self) {
        let Ok(mut renewed) = self.renewed.try_lock() else { return };
        if renewed.elapsed().as_millis() * 3 >= u128::from(LEASE_MS.unsigned_abs()) {
            let _ = self.bucket.write(&self.file, &self.text.as_bytes());
            *renewed = Stopwatch::start();
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // Where nothing can be removed it runs out.
        let _ = self.bucket.remove(&self.file);
    }
}
