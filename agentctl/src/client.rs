//! The connection to the daemon: one request, one reply, a line each, and a file beside some of them.
//!
//! A file comes with `SCM_RIGHTS` on the first byte of the line that it belongs to. The kernel never joins bytes across
//! such a message, so a file that came belongs to the line that is being read.
//!
//! The daemon is not trusted with memory: a line longer than [`LINE_LIMIT`] ends the connection.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentd_protocol::{ErrorObject, LINE_LIMIT, Message, Method, RecordView, RequestId, request};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::text;

/// Most files in one message of the kernel (SCM_MAX_FD is 253; we are never sent more than one).
const FILES: usize = 4;

/// A connection.
pub(crate) struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
    files: VecDeque<OwnedFd>,
    next_id: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens there.
    #[error("agentd does not run: nobody answers on {}", .path.display())]
    NotRunning { path: PathBuf, source: io::Error },
    /// The socket is not for us.
    #[error("you may not talk to agentd on {}", .path.display())]
    NotAllowed { path: PathBuf, source: io::Error },
    /// Something else.
    #[error("cannot reach agentd on {}", .path.display())]
    Other { path: PathBuf, source: io::Error },
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The daemon says why.
    #[error(transparent)]
    Refused(ErrorObject),
    /// The connection broke.
    #[error("lost agentd before it answered {method}")]
    Lost { method: String, source: io::Error },
    /// The daemon hung up.
    #[error("agentd hung up before it answered {method}")]
    HungUp { method: String },
    /// More than a line can hold.
    #[error("the request is {bytes} bytes long; the limit is {LINE_LIMIT}")]
    RequestTooLong { bytes: usize },
    /// A reply longer than a line can be.
    #[error("agentd answered {method} with more than {LINE_LIMIT} bytes")]
    ReplyTooLong { method: String },
    /// A line that is no message.
    #[error("agentd answered {method} with something that is not JSON-RPC")]
    NotRpc { method: String, source: serde_json::Error },
    /// A reply to something else.
    #[error("agentd answered {method} with a reply to another request")]
    WrongId { method: String },
    /// A result of another shape.
    #[error("agentd answered {method} with a result that this agentctl cannot read")]
    Shape { method: String, source: serde_json::Error },
    /// No file came.
    #[error("agentd answered {method} without the file that belongs to it")]
    NoFile { method: String },
}

impl Client {
    /// Connects.
    pub(crate) fn connect(path: &Path) -> Result<Client, ConnectError> {
        let stream = UnixStream::connect(path).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NotRunning { path, source },
                io::ErrorKind::PermissionDenied => ConnectError::NotAllowed { path, source },
                _ => ConnectError::Other { path, source },
            }
        })?;
        Ok(Client { stream, unread: Vec::new(), files: VecDeque::new(), next_id: 1 })
    }

    /// Asks, and waits for the answer however long it takes.
    pub(crate) fn call<R: DeserializeOwned>(&mut self, method: &Method) -> Result<R, CallError> {
        self.send(method)?;
        self.reply(method)
    }

    /// Asks for an answer that has a file beside it.
    pub(crate) fn call_for_file<R: DeserializeOwned>(&mut self, method: &Method) -> Result<(R, OwnedFd), CallError> {
        self.send(method)?;
        let reply = self.reply(method)?;
        let file = self.files.pop_front().ok_or_else(|| CallError::NoFile { method: name(method) })?;
        Ok((reply, file))
    }

    /// Sends a request; whoever sends it reads what comes.
    pub(crate) fn send(&mut self, method: &Method) -> Result<(), CallError> {
        let line = request(self.next_id, method);
        if line.len() > LINE_LIMIT {
            return Err(CallError::RequestTooLong { bytes: line.len() });
        }
        self.stream.write_all(line.as_bytes()).map_err(|source| CallError::Lost { method: name(method), source })
    }

    /// Reads the answer to the request that was sent last; notifications before it are dropped.
    fn reply<R: DeserializeOwned>(&mut self, method: &Method) -> Result<R, CallError> {
        let name = || name(method);
        let message = loop {
            let message = self.message(&name)?.ok_or_else(|| CallError::HungUp { method: name() })?;
            if message.method.is_none() {
                break message;
            }
        };
        if let Some(error) = message.error {
            return Err(CallError::Refused(error));
        }
        if message.id != Some(RequestId::Number(self.next_id)) {
            return Err(CallError::WrongId { method: name() });
        }
        self.next_id += 1;
        serde_json::from_value(message.result.unwrap_or(Value::Null))
            .map_err(|source| CallError::Shape { method: name(), source })
    }

    /// Reads what `audit.follow` says next: the past as its reply, and then one record at a time. `None`: it hung up.
    pub(crate) fn records(&mut self) -> Result<Option<Vec<RecordView>>, CallError> {
        let name = || "audit.follow".to_owned();
        let Some(message) = self.message(&name)? else { return Ok(None) };
        if let Some(error) = message.error {
            return Err(CallError::Refused(error));
        }
        let records = match (message.params, message.result) {
            (Some(record), _) => serde_json::from_value(record).map(|record| vec![record]),
            (None, Some(records @ Value::Array(_))) => serde_json::from_value(records),
            (None, _) => Ok(Vec::new()),
        };
        records.map(Some).map_err(|source| CallError::Shape { method: name(), source })
    }

    /// Waits no longer than this for anything.
    pub(crate) fn limit_wait(&self, most: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(most))
    }

    /// Whether a whole line is here already, so that reading one does not wait.
    pub(crate) fn has_line(&self) -> bool {
        self.unread.contains(&b'\n')
    }

    fn message(&mut self, name: &dyn Fn() -> String) -> Result<Option<Message>, CallError> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.unread[searched..].iter().position(|b| *b == b'\n') {
                break searched + at;
            }
            searched = self.unread.len();
            if searched > LINE_LIMIT {
                return Err(CallError::ReplyTooLong { method: name() });
            }
            match self.receive() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(source) => return Err(CallError::Lost { method: name(), source }),
            }
        };
        let message = serde_json::from_slice(&self.unread[..end])
            .map_err(|source| CallError::NotRpc { method: name(), source })?;
        self.unread.drain(..=end);
        Ok(Some(message))
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4 * 1024];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        self.unread.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A method's name, for those who are told that it did not work.
fn name(method: &Method) -> String {
    let value = serde_json::to_value(method).ok();
    value.and_then(|value| Some(value.get("method")?.as_str()?.to_owned())).unwrap_or_default()
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let hint = match &error {
            ConnectError::NotRunning { .. } => Some(start_command().to_owned()),
            ConnectError::NotAllowed { path, .. } => {
                group_of(path).map(|group| format!("sudo usermod --append --groups {group} $(id -un)"))
            }
            ConnectError::Other { .. } => None,
        };
        let failure = Failure::of(Exit::Unreachable, &error);
        Failure { hint, ..failure }
    }
}

/// The group whose members may talk to the daemon, as the socket says.
fn group_of(path: &Path) -> Option<String> {
    let gid = path.metadata().ok()?.gid().to_string();
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.into_iter().find(|fields| fields.get(2) == Some(&gid.as_str())).map(|fields| fields[0].to_owned())
}

/// What starts the daemon on this host.
fn start_command() -> &'static str {
    // The directory that sd_booted(3) looks for.
    if Path::new("/run/systemd/system").is_dir() { "systemctl start agentd" } else { "agentd &" }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Refused(object) => object.into(),
            CallError::Lost { .. } | CallError::HungUp { .. } => {
                Failure::of(Exit::Unreachable, &error).hint(start_command())
            }
            CallError::RequestTooLong { .. } => Failure::of(Exit::Usage, &error),
            CallError::Shape { ref source, .. } | CallError::NotRpc { ref source, .. } => {
                Failure::new(Exit::Bug, error.to_string())
                    .cause(text::clean(&source.to_string()))
                    .hint("agentctl --version; agentd --version")
            }
            _ => Failure::of(Exit::Bug, &error),
        }
    }
}
