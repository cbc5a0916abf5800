//! Bytes from the ring buffer become events.
//!
//! A sample is an allegation until its kind is known and its length fits; after that it is plain data. Numbers inside
//! it (rule ids, pids, path lengths) are still only claims of the kernel programs and are checked where they are used.

use zerocopy::FromBytes;

use crate::{BudgetEvent, EventHead, FileEvent, GuardEvent, NetEvent, ProcessEvent};

/// One sample of the ring buffer `events`.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A file access was refused.
    File(&'a FileEvent),
    /// A call that is not about a file was refused.
    Guard(&'a GuardEvent),
    /// An address was refused.
    Net(&'a NetEvent),
    /// A threshold of the CPU budget was passed.
    Budget(&'a BudgetEvent),
    /// A process began, changed or ended.
    Process(&'a ProcessEvent),
}

/// Why a sample is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It is shorter than its kind, or not aligned to eight bytes.
    Size,
    /// Its kind is unknown: the programs are newer than the daemon.
    Kind(u32),
}

impl<'a> Event<'a> {
    /// Reads one sample. Its bytes must be aligned to eight, as the ring buffer hands them out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        fn read<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(bytes: &[u8]) -> Result<&T, ParseError> {
            T::ref_from_prefix(bytes).ok().map(|(value, _)| value).ok_or(ParseError::Size)
        }
        let head: &EventHead = read(bytes)?;
        match head.kind {
            crate::EV_FILE_DENIED => read(bytes).map(Event::File),
            crate::EV_GUARD_DENIED => read(bytes).map(Event::Guard),
            crate::EV_NET_DENIED => read(bytes).map(Event::Net),
            crate::EV_CPU_WARN | crate::EV_CPU_EXHAUSTED | crate::EV_CPU_KILLED => read(bytes).map(Event::Budget),
            crate::EV_FORK | crate::EV_EXEC | crate::EV_EXIT => read(bytes).map(Event::Process),
            other => Err(ParseError::Kind(other)),
        }
    }

    /// The part that all kinds share.
    pub fn head(&self) -> &'a EventHead {
        match self {
            Event::File(event) => &event.head,
            Event::Guard(event) => &event.head,
            Event::Net(event) => &event.head,
            Event::Budget(event) => &event.head,
            Event::Process(event) => &event.head,
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_short_or_unknown_sample_is_refused() {
        let event =
            BudgetEvent { head: EventHead { kind: crate::EV_CPU_WARN, ..Default::default() }, ..Default::default() };
        assert!(matches!(Event::parse(event.as_bytes()), Ok(Event::Budget(_))));
        assert!(matches!(Event::parse(&event.as_bytes()[..56]), Err(ParseError::Size)));
        let unknown = EventHead { kind: 77, ..Default::default() };
        assert!(matches!(Event::parse(unknown.as_bytes()), Err(ParseError::Kind(77))));
    }
}
