//! The Messages API, as much of it as Claude Code needs.

use serde_json::{Value, json};

use super::{Act, Reply, stream_of, text_of};

/// Whether the request is part of a conversation in which something can be done.
pub(super) fn has_tools(asked: &Value) -> bool {
    asked["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "Bash"))
}

/// What came of the acts so far.
pub(super) fn results(asked: &Value) -> Vec<String> {
    let blocks = asked["messages"].as_array().into_iter().flatten().filter_map(|message| message["content"].as_array());
    blocks.flatten().filter(|block| block["type"] == "tool_result").map(|block| text_of(&block["content"])).collect()
}

/// The reply as a stream of events.
pub(super) fn events(reply: &Reply) -> String {
    let (block, delta, reason) = match reply {
        Reply::Words(words) => {
            (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": words}), "end_turn")
        }
        Reply::Act(act) => {
            let (tool, input) = call(act);
            let id = format!("toolu_{:024x}", input.to_string().len());
            let block = json!({"type": "tool_use", "id": id, "name": tool, "input": {}});
            (block, json!({"type": "input_json_delta", "partial_json": input.to_string()}), "tool_use")
        }
    };
    let usage = json!({"input_tokens": 10, "output_tokens": 10});
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "test", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": usage,
    });
    stream_of(&[
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ])
}

fn call(act: &Act) -> (&'static str, Value) {
    match act {
        Act::Read(file) => ("Read", json!({"file_path": file})),
        Act::Edit { file, old, new } => ("Edit", json!({"file_path": file, "old_string": old, "new_string": new})),
        Act::Shell(command) => ("Bash", json!({"command": command, "description": "A step of the task"})),
    }
}
