//! The keys that leave an agent alone: `Ctrl-]` and then `d`. `Ctrl-]` twice is one `Ctrl-]` for the agent.

/// `Ctrl-]`, as telnet has it: no editor, shell or pager in use wants it often.
const ESCAPE: u8 = 0x1d;

/// What was typed so far.
#[derive(Debug, Default)]
pub(super) struct Keys {
    escaped: bool,
}

impl Keys {
    /// What of the typed bytes is for the agent, and whether the person leaves; nothing after that is for the agent.
    pub(super) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (std::mem::take(&mut self.escaped), byte) {
                (true, b'd') => return (out, true),
                (true, ESCAPE) => out.push(ESCAPE),
                (true, other) => out.extend([ESCAPE, other]),
                (false, ESCAPE) => self.escaped = true,
                (false, other) => out.push(other),
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_work_however_they_are_cut() {
        let mut keys = Keys::default();
        assert_eq!(keys.filter(b"ls\x1d"), (b"ls".to_vec(), false));
        assert_eq!(keys.filter(b"x\x1d\x1d"), (b"\x1dx\x1d".to_vec(), false));
        assert_eq!(keys.filter(b"d\x1ddrm"), (b"d".to_vec(), true));
    }
}
