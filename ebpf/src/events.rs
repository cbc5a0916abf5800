//! Reads what the programs report.
//!
//! The reader owns the ring buffer's consumer side: there may be one at a time on a host. Samples are copied out, so that
//! a slow consumer never holds the ring.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentd_abi::{Event, ParseError};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

/// Most samples that one [`EventReader::drain`] takes; the rest waits for the next.
const AT_ONCE: usize = 4096;

/// One sample, in words so that it is aligned as an event must be.
type Sample = (usize, Vec<u64>);

/// The reading side of `events`. Can be moved to another thread; its methods take `&mut self`.
pub struct EventReader {
    ring: RingBuffer<'static>,
    samples: Arc<Mutex<Vec<Sample>>>,
    _map: MapHandle,
}

/// The ring buffer could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the ring buffer of events")]
pub struct OpenEventsError(#[source] libbpf_rs::Error);

/// The ring buffer could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the ring buffer of events")]
pub struct DrainError(#[source] std::io::Error);

impl OpenEventsError {
    pub(crate) fn from_libbpf(error: libbpf_rs::Error) -> Self {
        Self(error)
    }
}

impl EventReader {
    pub(crate) fn open(map: MapHandle) -> Result<Self, OpenEventsError> {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let sink = Arc::clone(&samples);
        let mut builder = RingBufferBuilder::new();
        let copy = move |bytes: &[u8]| {
            let mut words = vec![0u64; bytes.len().div_ceil(8)];
            zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice())[..bytes.len()].copy_from_slice(bytes);
            sink.lock().unwrap_or_else(PoisonError::into_inner).push((bytes.len(), words));
            0
        };
        builder.add(&map, copy).map_err(OpenEventsError)?;
        let ring = builder.build().map_err(OpenEventsError)?;
        Ok(Self { ring, samples, _map: map })
    }

    /// Readable when there is something to drain.
    pub fn epoll_fd(&self) -> RawFd {
        self.ring.epoll_fd()
    }

    /// Waits until there is something to drain, at most `timeout`; an interrupted wait is over.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), DrainError> {
        match self.ring.poll_raw(timeout) {
            0.. => Ok(()),
            error if error == -libc::EINTR => Ok(()),
            error => Err(DrainError(std::io::Error::from_raw_os_error(-error))),
        }
    }

    /// Hands every waiting sample to `take`, oldest first, and returns how many there were. 4096 at most: if it returns
    /// that many, call again.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Event<'_>, ParseError>)) -> Result<usize, DrainError> {
        let count = self.ring.consume_raw_n(AT_ONCE);
        if count < 0 {
            return Err(DrainError(std::io::Error::from_raw_os_error(-count)));
        }
        let samples = std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        for (length, words) in &samples {
            take(Event::parse(&zerocopy::IntoBytes::as_bytes(words.as_slice())[..*length]));
        }
        Ok(samples.len())
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.epoll_fd()
    }
}
