//! The Responses API, as much of it as Codex needs.
//!
//! Codex offers its shell and its edit tool under names that depend on its version and on what it knows of the model, so
//! the request says which one to call.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Act, Reply, stream_of, text_of};

/// Shell tools by the name that Codex gives them, and their arguments.
const SHELLS: [&str; 4] = ["exec_command", "shell_command", "shell", "local_shell"];

/// Whether the request is part of a conversation in which something can be done.
pub(super) fn has_tools(asked: &Value) -> bool {
    asked["tools"].as_array().is_some_and(|tools| !tools.is_empty())
}

/// What came of the acts so far.
pub(super) fn results(asked: &Value) -> Vec<String> {
    let items = asked["input"].as_array().into_iter().flatten();
    let ends = |item: &&Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"));
    items.filter(ends).map(|item| text_of(&item["output"])).collect()
}

/// The reply as a stream of events.
pub(super) fn events(reply: &Reply, asked: &Value) -> Result<String> {
    let item = match reply {
        Reply::Words(words) => {
            json!({"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": words}]})
        }
        Reply::Act(act) => call(act, asked)?,
    };
    let usage = json!({
        "input_tokens": 10, "input_tokens_details": null, "output_tokens": 10, "output_tokens_details": null,
        "total_tokens": 20,
    });
    Ok(stream_of(&[
        json!({"type": "response.created", "response": {"id": "resp_1"}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}),
    ]))
}

fn call(act: &Act, asked: &Value) -> Result<Value> {
    let tools = asked["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |name: &str| tools.iter().find(|tool| tool["name"] == name || tool["type"] == name);
    let id = format!("call_{}", results(asked).len());
    match act {
        Act::Edit { file, old, new } => {
            let patch = format!("*** Begin Patch\n*** Update File: {file}\n@@\n-{old}\n+{new}\n*** End Patch\n");
            match named("apply_patch") {
                Some(tool) if tool["type"] == "custom" => {
                    Ok(json!({"type": "custom_tool_call", "call_id": id, "name": "apply_patch", "input": patch}))
                }
                Some(_) => Ok(function(&id, "apply_patch", &json!({"input": patch}))),
                // Codex catches this name in its shell, and does the patch itself.
                None => shell(&id, &format!("apply_patch <<'EOF'\n{patch}EOF\n"), &named),
            }
        }
        Act::Read(file) => shell(&id, &format!("cat '{file}'"), &named),
        Act::Shell(command) => shell(&id, command, &named),
    }
}

fn shell<'a>(id: &str, command: &str, named: &impl Fn(&str) -> Option<&'a Value>) -> Result<Value> {
    let Some(name) = SHELLS.into_iter().find(|name| named(name).is_some()) else {
        bail!("the client offers no shell that is known here");
    };
    Ok(match name {
        // The longest that it waits before it calls a command a session.
        "exec_command" => function(id, name, &json!({"cmd": command, "yield_time_ms": 30_000})),
        "shell_command" => function(id, name, &json!({"command": command, "timeout_ms": 120_000})),
        "shell" => function(id, name, &json!({"command": ["bash", "-lc", command], "timeout_ms": 120_000})),
        _ => json!({
            "type": "local_shell_call", "call_id": id, "status": "completed",
            "action": {"type": "exec", "command": ["bash", "-lc", command], "timeout_ms": 120_000},
        }),
    })
}

fn function(id: &str, name: &str, arguments: &Value) -> Value {
    json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()})
}
