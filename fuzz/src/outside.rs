//! What people and their programs send: lines of the protocol, frames, profiles, options.

use agentd_policy::parse::{self, Places};
use agentd_policy::profile::{Profile, Profiles, Vars};
use agentd_protocol::attach::{Decoder, Frame};
use agentd_protocol::{Message, Method};

/// A line of JSON-RPC; and the same bytes as frames of an attach stream.
pub fn protocol_line(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<Message>(data) {
        let line = message.to_line();
        assert!(line.ends_with('\n') && !line[..line.len() - 1].contains('\n'), "a message is one line");
        let again: Message = serde_json::from_str(&line).expect("a line reads back");
        assert_eq!(again.to_line(), line, "and says the same");
    }
    if let Ok(method) = serde_json::from_slice::<Method>(data) {
        let line = agentd_protocol::request(7, &method);
        let again: Method = serde_json::from_str(&line).expect("a request reads back");
        assert_eq!(agentd_protocol::request(7, &again), line, "and says the same");
    }
    frames(data);
}

/// However the bytes are cut, the frames are the same, and each is what its bytes say.
fn frames(data: &[u8]) {
    let whole = read(data, data.len().max(1));
    assert_eq!(read(data, 1), whole, "where bytes are cut is no matter");
    for frame in whole.0 {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        // Output of no bytes is no frame.
        if !bytes.is_empty() {
            assert_eq!(read(&bytes, bytes.len()), (vec![frame], false), "a frame reads back");
        }
    }
}

fn read(data: &[u8], at_a_time: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    for chunk in data.chunks(at_a_time) {
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_broken) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// The text of a profile; and its lines as options of a command line.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Profile::parse(text) {
        Ok(profile) => {
            let mut all = Profiles::built_in();
            let name = profile.name.clone();
            if all.add(profile).is_ok() {
                let vars = Vars {
                    workspace: "/home/u/work".into(),
                    home: "/home/u".into(),
                    user: "u".into(),
                    tmp: "/tmp/agent".into(),
                    uid: 1000,
                };
                match all.expand(&name, &vars) {
                    Ok(expanded) => drop(expanded.environment([("LANG", "C"), ("HOME", "/home/u")])),
                    Err(error) => drop(error.to_string()),
                }
            }
        }
        Err(error) => drop(error.to_string()),
    }
    let places = Places { cwd: "/home/u/work", home: "/home/u" };
    for line in text.lines().take(64) {
        for rule in [parse::allow(line, places), parse::deny(line, places)].into_iter().flatten() {
            let path = rule.path.strip_prefix("**").unwrap_or(&rule.path);
            assert!(path.starts_with('/'), "a rule's path begins at the root: {path}");
            assert!(path.split('/').all(|part| part != ".."), "and goes nowhere but down: {path}");
        }
        drop(parse::net(line));
    }
}
