//! Which object is behind a descriptor, as the hooks see it?
//!
//! `stat(2)` is not the answer: on overlayfs and some others it shows another device than the kernel's own objects have.
//! A program that shares the hooks' code looks descriptors up, a dozen at a time, in the calling process (test-run of a raw tracepoint
//! program); it loads on hosts without BPF LSM too.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use agentd_abi::Object;
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use zerocopy::{FromBytes, IntoBytes};

use crate::capture::Capture;
use crate::object;
use crate::settings::Settings;
use crate::support::errno;

/// Descriptors that one run looks up (`QUESTIONS` in `ebpf/lsm/identify.bpf.c`).
const QUESTIONS: usize = 12;

/// The program that answers. One caller at a time; others wait.
pub struct Identifier {
    object: Mutex<libbpf_rs::Object>,
}

/// A file as the hooks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The key that rules on it need.
    pub object: Object,
    /// Whether it is a directory.
    pub directory: bool,
}

/// Why the program could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the program that identifies files: {said}")]
pub struct LoadIdentifierError {
    said: String,
    #[source]
    source: libbpf_rs::Error,
}

/// Why a descriptor could not be identified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// The kernel did not run the program.
    #[error("cannot run the program that identifies files")]
    Run(#[source] libbpf_rs::Error),
    /// Nothing is behind the descriptor.
    #[error("descriptor {fd} has no object behind it")]
    Nothing {
        /// Which.
        fd: i32,
    },
}

impl Identifier {
    /// Loads the program.
    pub fn load() -> Result<Self, LoadIdentifierError> {
        let capture = Capture::start();
        let object = object::open(object::IDENTIFY, &Settings::default())
            .and_then(libbpf_rs::OpenObject::load)
            .map_err(|source| LoadIdentifierError { said: capture.tail(1), source })?;
        Ok(Self { object: Mutex::new(object) })
    }

    /// Identifies open descriptors, in order. `O_PATH` is enough.
    pub fn identify(&self, descriptors: &[BorrowedFd<'_>]) -> Result<Vec<Identified>, IdentifyError> {
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::with_capacity(descriptors.len());
        for some in descriptors.chunks(QUESTIONS) {
            let fds: Vec<i32> = some.iter().map(AsRawFd::as_raw_fd).collect();
            let answers = ask(&object, &fds)?;
            for (fd, answer) in fds.into_iter().zip(answers) {
                found.push(identified(answer).ok_or(IdentifyError::Nothing { fd })?);
            }
        }
        Ok(found)
    }
}

/// Runs the program once for up to [`QUESTIONS`] descriptors.
fn ask(object: &libbpf_rs::Object, fds: &[i32]) -> Result<Vec<Object>, IdentifyError> {
    let absent = || IdentifyError::Run(libbpf_rs::Error::from_raw_os_error(libc::ENOENT));
    let program = object.progs_mut().find(|program| program.name() == OsStr::new("identify")).ok_or_else(absent)?;
    // No process has a descriptor of the number that fills up what is not asked.
    let mut arguments = [u64::MAX; QUESTIONS];
    for (argument, fd) in arguments.iter_mut().zip(fds) {
        *argument = u64::from(fd.unsigned_abs());
    }
    let input = ProgramInput { context_in: Some(arguments.as_mut_bytes()), ..Default::default() };
    program.test_run(input).map_err(IdentifyError::Run)?;
    let map = object.maps().find(|map| map.name() == OsStr::new("identified")).ok_or_else(absent)?;
    let answers = map.lookup_batch(QUESTIONS as u32, MapFlags::ANY, MapFlags::ANY).map_err(IdentifyError::Run)?;
    answers.map(|(_, value)| Object::read_from_bytes(&value).ok().ok_or_else(absent)).collect()
}

/// `None`: nothing that a rule can name.
fn identified(answer: Object) -> Option<Identified> {
    const DEV_UNKNOWN: u32 = 0xffff_fffe; // ebpf/lsm/object.h
    let directory = answer.reserved & libc::S_IFMT == libc::S_IFDIR;
    (answer.dev != DEV_UNKNOWN).then_some(Identified { object: Object { reserved: 0, ..answer }, directory })
}

impl LoadIdentifierError {
    /// The kernel's error number, if there is one.
    pub fn errno(&self) -> Option<i32> {
        errno(&self.source)
    }
}
