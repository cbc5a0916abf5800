//! The envelope: JSON-RPC 2.0 requests, replies and notifications, one a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::method::Method;

/// What a reply refers to. Numbers and texts only; `null` is not an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// Anything that may stand on a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Missing in a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// Present in requests and notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Parameters of a request or notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// Present in a reply to what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Present in a reply to what was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorObject {
    /// See [`ErrorCode`].
    pub code: i32,
    /// What could not be done, to what.
    pub message: String,
    /// Causes and hint.
    #[serde(default)]
    pub data: ErrorData,
}

/// The rest of an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorData {
    /// What lies behind it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// A command to paste.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Codes of errors; the positive ones are exit codes of `agentctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// It could not be done.
    Failed = 1,
    /// The request makes no sense.
    Usage = 2,
    /// Policy refuses it.
    Refused = 3,
    /// A bug of the daemon.
    Bug = 70,
    /// The line is not JSON.
    Parse = -32700,
    /// The line is not a request.
    Invalid = -32600,
    /// No such method.
    NoMethod = -32601,
}

impl ErrorObject {
    /// An error without causes.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ErrorObject {
        ErrorObject { code: code as i32, message: message.into(), data: ErrorData::default() }
    }

    /// An error with the chain of causes of `error`, whose own text is the message.
    pub fn from_error(code: ErrorCode, error: &(dyn std::error::Error + 'static)) -> ErrorObject {
        let mut object = ErrorObject::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            object.data.causes.push(cause.to_string());
            source = cause.source();
        }
        object
    }

    /// Adds a command to paste.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ErrorObject {
        self.data.hint = Some(hint.into());
        self
    }
}

fn message() -> Message {
    Message { jsonrpc: "2.0".to_owned(), id: None, method: None, params: None, result: None, error: None }
}

/// A request as it stands on a line, with the newline.
pub fn request(id: u64, method: &Method) -> String {
    #[derive(Serialize)]
    struct Request<'a> {
        jsonrpc: &'static str,
        id: u64,
        #[serde(flatten)]
        method: &'a Method,
    }
    line(&Request { jsonrpc: "2.0", id, method })
}

fn line<T: Serialize>(message: &T) -> String {
    match serde_json::to_string(message) {
        Ok(text) => text + "\n",
        Err(error) => unreachable!("a message is plain data and always prints: {error}"),
    }
}

/// A reply to what was done.
pub fn reply(id: RequestId, result: Value) -> Message {
    Message { id: Some(id), result: Some(result), ..message() }
}

/// A reply to what was not done; without an id where the request had none that could be read.
pub fn reply_error(id: Option<RequestId>, error: ErrorObject) -> Message {
    Message { id, error: Some(error), ..message() }
}

/// A message that asks for no reply.
pub fn notification(method: &str, params: Value) -> Message {
    Message { method: Some(method.to_owned()), params: Some(params), ..message() }
}

impl Message {
    /// The line, with its newline.
    pub fn to_line(&self) -> String {
        line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back() {
        let line = request(7, &Method::AgentList { all: true });
        assert_eq!(line, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"agent.list\",\"params\":{\"all\":true}}\n");
        let back: Message = serde_json::from_str(&line).unwrap();
        assert_eq!((back.id, back.method.as_deref()), (Some(RequestId::Number(7)), Some("agent.list")));
    }
}
