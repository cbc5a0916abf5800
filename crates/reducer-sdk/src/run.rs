//! One step from bytes to bytes, which is all that a WASM engine can carry.

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, decode};

use crate::abi::{Context, Event, Input, Output, VERSION};
use crate::value::{read, write};

/// Takes one step: reads an [`Input`], asks the step function, writes its [`Output`].
///
/// # Errors
/// What the step function says, or why it could not be asked. On `wasm32` every one of them becomes a trap.
pub fn run<S, F>(input: &[u8], step: F) -> Result<Vec<u8>, StepError>
where
    S: for<'b> Decode<'b, ()>,
    F: FnOnce(&Context, Option<S>, &Event) -> Result<Output, StepError>,
{
    let version = version(input).map_err(StepError::Input)?;
    if version != VERSION {
        return Err(StepError::Version(version));
    }
    let input: Input = read(input).map_err(StepError::Input)?;
    let state = input.state.as_ref().map(|bytes| read(bytes)).transpose().map_err(StepError::State)?;
    let output = step(&input.context, state, &input.event)?;
    Ok(write(&output))
}

/// The version alone, because what follows it may be of another shape.
fn version(input: &[u8]) -> Result<u32, decode::Error> {
    let mut decoder = minicbor::Decoder::new(input);
    decoder.array()?;
    decoder.u32()
}

/// Why a step was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum StepError {
    /// The input is not one.
    Input(decode::Error),
    /// The world speaks another version of the contract.
    Version(u32),
    /// The cell holds something that this module did not write, or wrote as another type.
    State(decode::Error),
    /// The cell has a key of another type, or none.
    Key(Option<decode::Error>),
    /// The event's value is not of the type that the step expects.
    Event {
        /// Its schema.
        schema: String,
        /// What is wrong with it.
        source: decode::Error,
    },
    /// The step has no rule for events of this schema.
    Schema(String),
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(_) => f.write_str("cannot read the input"),
            Self::Version(version) => write!(f, "the input has version {version}, this reducer reads {VERSION}"),
            Self::State(_) => f.write_str("cannot read the state"),
            Self::Key(Some(_)) => f.write_str("cannot read the key"),
            Self::Key(None) => f.write_str("the module has no keys"),
            Self::Event { schema, .. } => write!(f, "cannot read the value of an event {schema}"),
            Self::Schema(schema) => write!(f, "there is no rule for events {schema}"),
        }
    }
}

impl core::error::Error for StepError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Input(source) | Self::State(source) | Self::Key(Some(source)) | Self::Event { source, .. } => {
                Some(source)
            }
            Self::Version(_) | Self::Key(None) | Self::Schema(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the event to the state.
    fn add(_: &Context, state: Option<u64>, event: &Event) -> Result<Output, StepError> {
        Ok(Output::keep().set(&(state.unwrap_or(0) + event.decode::<u64>()?)))
    }

    fn input(state: Option<&[u8]>, event: Event) -> Input {
        let state = state.map(|bytes| bytes.to_vec().into());
        Input { version: VERSION, context: Context::at(3), state, event }
    }

    #[test]
    fn a_step_is_a_function_of_its_input() {
        let first = write(&input(None, Event::new("a/b@1", &5_u64)));
        assert_eq!(run(&first, add).unwrap(), write(&Output::keep().set(&5_u64)));
        let second = write(&input(Some(&[5]), Event::new("a/b@1", &2_u64)));
        assert_eq!(run(&second, add).unwrap(), write(&Output::keep().set(&7_u64)));
    }

    #[test]
    fn an_input_is_what_the_contract_says() {
        let bytes = write(&input(None, Event::new("a/b@1", &5_u64)));
        let mut expected = [0x84, 1, 0x85, 3, 3, 1, 0x58, 32].to_vec();
        expected.extend([0; 32]);
        expected.extend([0xf6, 0xf6, 0x82, 0x65, b'a', b'/', b'b', b'@', b'1', 0x41, 5]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn another_version_is_refused_whatever_follows() {
        assert!(matches!(run(&[0x82, 2, 0], add), Err(StepError::Version(2))));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        let whole = write(&input(Some(&[5]), Event::new("a/b@1", &5_u64)));
        for end in 0..whole.len() {
            assert!(matches!(run(&whole[..end], add), Err(StepError::Input(_))), "{end} bytes");
        }
        let state = write(&input(Some(&[0x60]), Event::new("a/b@1", &5_u64)));
        assert!(matches!(run(&state, add), Err(StepError::State(_))));
        let event = write(&input(None, Event::new("a/b@1", "five")));
        assert!(matches!(run(&event, add), Err(StepError::Event { .. })));
    }
}
