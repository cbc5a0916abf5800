//! One connection: lines in, lines out, now and then a file beside a line.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use agentd_protocol::{
    ErrorCode, ErrorObject, LINE_LIMIT, Message, Method, RequestId, notification, reply, reply_error,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;

use super::caller::Caller;
use super::{Service, methods};

/// What a method gives.
pub(super) enum Answer {
    /// A value.
    Value(Value),
    /// A value, and an open file beside it.
    File(Value, OwnedFd),
    /// A value, and then notifications until the client hangs up.
    Follow(Value, super::audit::Follow),
}

/// How long a connection may say nothing between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// Serves one connection until its end.
pub(super) async fn serve(stream: UnixStream, caller: Caller, service: &Service) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut stream).take(LINE_LIMIT as u64 + 1);
        let Ok(limited) = tokio::time::timeout(IDLE, limited.read_until(b'\n', &mut line)).await else { return };
        let ended = match limited {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() > LINE_LIMIT => {
                let error = ErrorObject::new(ErrorCode::Invalid, format!("the line is longer than {LINE_LIMIT} bytes"));
                let _ = stream.get_mut().write_all(reply_error(None, error).to_line().as_bytes()).await;
                return;
            }
            Ok(_) => answer(&line, &mut stream, caller, service).await,
        };
        if ended.is_err() {
            return;
        }
    }
}

/// Answers one line. An error means that the connection is over.
async fn answer(
    line: &[u8],
    stream: &mut BufReader<UnixStream>,
    caller: Caller,
    service: &Service,
) -> Result<(), io::Error> {
    let (id, method) = match parse(line) {
        Ok(request) => request,
        Err((id, error)) => return stream.get_mut().write_all(reply_error(id, error).to_line().as_bytes()).await,
    };
    // Whoever hangs up while it waits does not keep a task.
    let answer = tokio::select! {
        answer = methods::call(method, caller, service) => answer,
        () = hung_up(stream.get_ref()) => return Err(io::ErrorKind::ConnectionReset.into()),
    };
    match answer {
        Ok(Answer::Value(value)) => stream.get_mut().write_all(reply(id, value).to_line().as_bytes()).await,
        Ok(Answer::File(value, file)) => write_with_file(stream.get_mut(), &reply(id, value).to_line(), &file).await,
        Ok(Answer::Follow(value, mut follow)) => {
            stream.get_mut().write_all(reply(id, value).to_line().as_bytes()).await?;
            while let Some(record) = follow.next().await {
                let line = notification("audit.record", record).to_line();
                stream.get_mut().write_all(line.as_bytes()).await?;
            }
            Ok(())
        }
        Err(error) => stream.get_mut().write_all(reply_error(Some(id), error).to_line().as_bytes()).await,
    }
}

fn parse(line: &[u8]) -> Result<(RequestId, Method), (Option<RequestId>, ErrorObject)> {
    let message: Message = serde_json::from_slice(line)
        .map_err(|error| (None, ErrorObject::new(ErrorCode::Parse, format!("the line is not a request: {error}"))))?;
    let invalid = |text: &str| ErrorObject::new(ErrorCode::Invalid, text);
    let Some(id) = message.id else { return Err((None, invalid("a request needs an id"))) };
    let Some(method) = message.method else { return Err((Some(id), invalid("a request needs a method"))) };
    let params = message.params.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let named = [("method".to_owned(), Value::String(method.clone())), ("params".to_owned(), params)];
    match serde_json::from_value(Value::Object(named.into_iter().collect())) {
        Ok(parsed) => Ok((id, parsed)),
        Err(error) => {
            let text = error.to_string();
            let code = if text.contains("unknown variant") { ErrorCode::NoMethod } else { ErrorCode::Usage };
            Err((Some(id), ErrorObject::new(code, format!("{method}: {text}"))))
        }
    }
}

/// Returns when the peer has closed its end. A peer that sends its next request early is not taken for one that has gone.
async fn hung_up(stream: &UnixStream) {
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => return,
            Err(_) => return,
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
        }
    }
}

/// Writes a line whose first byte carries an open file.
async fn write_with_file(stream: &mut UnixStream, line: &str, file: &OwnedFd) -> io::Result<()> {
    let bytes = line.as_bytes();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let files = [file.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&files)];
            let part = [io::IoSlice::new(bytes)];
            sendmsg::<()>(stream.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).map_err(io::Error::from)
        })
        .await?;
    stream.write_all(&bytes[sent..]).await
}
