//! The frames of an attach stream: what a person's terminal and an agent's shim say to each other.
//!
//! A frame is `kind: u8`, `length: u32` little-endian, and `length` bytes, at most [`PAYLOAD_LIMIT`]:
//!
//! | kind | frame | payload | direction |
//! |---|---|---|---|
//! | 0 | stdin | bytes | client → shim |
//! | 1 | end of stdin | none | client → shim |
//! | 2 | stdout (and everything from a pty) | bytes | shim → client |
//! | 3 | stderr | bytes | shim → client |
//! | 4 | resize | rows u16, columns u16 | client → shim |
//! | 5 | signal | number u8, 1 to 64 | client → shim |
//! | 6 | exit | 0 and the code, or 1 and the signal | shim → client, last |
//! | 7 | notice | UTF-8 text for the person | shim → client |
//!
//! Both sides treat the other's bytes as hostile: a frame that breaks a rule above ends the stream, and a decoder holds
//! no more than was pushed into it, which its user bounds by taking every frame out before pushing on.
//!
//! Not here: sockets, terminals. Bytes become frames and frames become bytes.

use agentd_model::ExitStatus;

/// Most bytes of payload in one frame.
pub const PAYLOAD_LIMIT: usize = 64 * 1024;

/// Bytes of `kind` and `length`.
pub const HEAD_BYTES: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Input for the agent.
    Stdin(Vec<u8>),
    /// There will be no more input.
    StdinEof,
    /// Output of the agent; with a pty, all of it.
    Stdout(Vec<u8>),
    /// Error output of the agent.
    Stderr(Vec<u8>),
    /// The person's terminal has this size now.
    Resize {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        columns: u16,
    },
    /// Send the agent's program this signal.
    Signal(u8),
    /// How the agent's program ended; nothing follows.
    Exit(ExitStatus),
    /// Something for the person, not from the agent.
    Notice(String),
}

/// Which of the agent's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output, or the pty.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a stream of bytes is not a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A kind that does not exist.
    #[error("attach frame of unknown kind {kind}")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// More payload than a frame may have.
    #[error("attach frame of {length} bytes; the limit is {PAYLOAD_LIMIT}")]
    TooLong {
        /// The length given.
        length: u32,
    },
    /// A payload that its kind does not allow.
    #[error("attach frame of kind {kind} with a payload that it cannot have")]
    Payload {
        /// The kind.
        kind: u8,
    },
}

impl Frame {
    /// Appends the frame's bytes; a payload beyond [`PAYLOAD_LIMIT`] becomes several frames, a notice is cut there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Stdin(bytes) => encode_chunks(0, bytes, out),
            Frame::StdinEof => encode_one(1, &[], out),
            Frame::Stdout(bytes) => encode_chunks(2, bytes, out),
            Frame::Stderr(bytes) => encode_chunks(3, bytes, out),
            Frame::Resize { rows, columns } => {
                let ([r0, r1], [c0, c1]) = (rows.to_le_bytes(), columns.to_le_bytes());
                encode_one(4, &[r0, r1, c0, c1], out);
            }
            Frame::Signal(signal) => encode_one(5, &[*signal], out),
            Frame::Exit(ExitStatus::Code { code }) => encode_one(6, &[0, *code], out),
            Frame::Exit(ExitStatus::Signal { signal }) => encode_one(6, &[1, *signal], out),
            Frame::Notice(text) => encode_one(7, &text.as_bytes()[..text.floor_char_boundary(PAYLOAD_LIMIT)], out),
        }
    }
}

/// Appends the frames of a piece of output without copying it first.
pub fn encode_output(output: Output, bytes: &[u8], out: &mut Vec<u8>) {
    encode_chunks(if output == Output::Stdout { 2 } else { 3 }, bytes, out);
}

fn encode_chunks(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(PAYLOAD_LIMIT) {
        encode_one(kind, chunk, out);
    }
}

fn encode_one(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD_LIMIT, "a frame's payload is cut before it is encoded");
    out.reserve(HEAD_BYTES + payload.len());
    out.push(kind);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Turns bytes, cut anywhere, back into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
    broken: Option<FrameError>,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes in bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        self.buffer.drain(..std::mem::take(&mut self.taken));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` where more bytes are needed. After an error there is only that error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        match decode(rest) {
            Ok(Some((frame, length))) => {
                self.taken += length;
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.broken = Some(error);
                self.buffer = Vec::new();
                self.taken = 0;
                Err(error)
            }
        }
    }

    /// Whether the stream could end here without cutting a frame.
    pub fn is_between_frames(&self) -> bool {
        self.broken.is_none() && self.taken == self.buffer.len()
    }
}

/// The first frame of `bytes` and its length in all.
fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some((&kind, after)) = bytes.split_first() else { return Ok(None) };
    if kind > 7 {
        return Err(FrameError::Kind { kind });
    }
    let Some((length, after)) = after.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    // Refused on its head alone: nobody collects bytes for a frame that cannot be.
    if length as usize > PAYLOAD_LIMIT {
        return Err(FrameError::TooLong { length });
    }
    let Some(payload) = after.get(..length as usize) else { return Ok(None) };
    let frame = match (kind, payload) {
        (0, bytes) => Frame::Stdin(bytes.to_vec()),
        (1, []) => Frame::StdinEof,
        (2, bytes) => Frame::Stdout(bytes.to_vec()),
        (3, bytes) => Frame::Stderr(bytes.to_vec()),
        (4, &[r0, r1, c0, c1]) => {
            Frame::Resize { rows: u16::from_le_bytes([r0, r1]), columns: u16::from_le_bytes([c0, c1]) }
        }
        (5, &[signal @ 1..=64]) => Frame::Signal(signal),
        (6, &[0, code]) => Frame::Exit(ExitStatus::Code { code }),
        (6, &[1, signal @ 1..=64]) => Frame::Exit(ExitStatus::Signal { signal }),
        (7, text) => match std::str::from_utf8(text) {
            Ok(text) => Frame::Notice(text.to_owned()),
            Err(_) => return Err(FrameError::Payload { kind }),
        },
        _ => return Err(FrameError::Payload { kind }),
    };
    Ok(Some((frame, HEAD_BYTES + length as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Frame> {
        vec![
            Frame::Stdin(b"ls\n".to_vec()),
            Frame::StdinEof,
            Frame::Stdout(vec![0, 255, 10]),
            Frame::Stderr(vec![1]),
            Frame::Resize { rows: 24, columns: 0x1234 },
            Frame::Signal(15),
            Frame::Exit(ExitStatus::Code { code: 127 }),
            Frame::Exit(ExitStatus::Signal { signal: 9 }),
            Frame::Notice("dropped: too slow — sorry".into()),
        ]
    }

    fn drain(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        every_kind().iter().for_each(|frame| frame.encode(&mut bytes));
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                seen.extend(drain(&mut decoder));
            }
            assert_eq!(seen, every_kind(), "cut every {size} bytes");
            assert!(decoder.is_between_frames());
        }
    }

    #[test]
    fn long_output_becomes_several_frames() {
        let long = vec![7; PAYLOAD_LIMIT * 2 + 1];
        let (mut one, mut two) = (Vec::new(), Vec::new());
        Frame::Stdout(long.clone()).encode(&mut one);
        encode_output(Output::Stdout, &long, &mut two);
        assert_eq!(one, two);
        let mut decoder = Decoder::new();
        decoder.push(&one);
        let lengths: Vec<usize> =
            drain(&mut decoder).iter().map(|f| if let Frame::Stdout(b) = f { b.len() } else { 0 }).collect();
        assert_eq!(lengths, [PAYLOAD_LIMIT, PAYLOAD_LIMIT, 1]);
    }

    #[test]
    fn a_long_notice_is_cut_between_characters() {
        let mut bytes = Vec::new();
        Frame::Notice("é".repeat(PAYLOAD_LIMIT)).encode(&mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        assert!(matches!(decoder.next_frame(), Ok(Some(Frame::Notice(text))) if text.len() == PAYLOAD_LIMIT));
    }

    #[test]
    fn hostile_bytes_end_the_stream_at_once() {
        let cases: [(&[u8], FrameError); 9] = [
            (&[8], FrameError::Kind { kind: 8 }),
            (&[0, 1, 0, 1, 0], FrameError::TooLong { length: 65537 }),
            (&[0, 255, 255, 255, 255], FrameError::TooLong { length: u32::MAX }),
            (&[1, 1, 0, 0, 0, 0], FrameError::Payload { kind: 1 }),
            (&[4, 2, 0, 0, 0, 1, 2], FrameError::Payload { kind: 4 }),
            (&[5, 1, 0, 0, 0, 0], FrameError::Payload { kind: 5 }),
            (&[5, 1, 0, 0, 0, 65], FrameError::Payload { kind: 5 }),
            (&[6, 2, 0, 0, 0, 2, 0], FrameError::Payload { kind: 6 }),
            (&[7, 1, 0, 0, 0, 0xff], FrameError::Payload { kind: 7 }),
        ];
        for (bytes, error) in cases {
            let mut decoder = Decoder::new();
            decoder.push(bytes);
            assert_eq!(decoder.next_frame(), Err(error), "{bytes:?}");
            decoder.push(&[1, 0, 0, 0, 0]);
            assert_eq!(decoder.next_frame(), Err(error), "the error stays");
            assert!(!decoder.is_between_frames());
        }
    }

    #[test]
    fn no_bytes_panic() {
        // Every short string over a small alphabet of interesting bytes.
        let alphabet = [0u8, 1, 4, 5, 6, 7, 8, 0x80, 0xff];
        for seed in 0..alphabet.len().pow(6) {
            let bytes: Vec<u8> =
                (0..6).map(|place| alphabet[seed / alphabet.len().pow(place) % alphabet.len()]).collect();
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
