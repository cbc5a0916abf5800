//! What a step is given, read as types.

use alloc::string::String;

use minicbor::{Decode, Encode};

use crate::StepError;
use crate::abi::{Context, Event};
use crate::value::{read, write};

impl Context {
    /// A context for tests: both clocks at that time, position 1, entropy of zeroes, no key.
    #[must_use]
    pub fn at(wall_ns: u64) -> Self {
        Self { wall_ns, logical_ns: wall_ns, seq: 1, entropy: [0; 32].into(), key: None }
    }

    /// The same for the cell with that key; for tests.
    #[must_use]
    pub fn with_key<T: Encode<()> + ?Sized>(self, key: &T) -> Self {
        Self { key: Some(write(key).into()), ..self }
    }

    /// Random bytes of this step alone, the same on every replay.
    #[must_use]
    pub fn entropy(&self) -> &[u8; 32] {
        &self.entropy
    }

    /// The key of this cell.
    ///
    /// # Errors
    /// [`StepError::Key`] if the module has no keys, or keys of another type.
    pub fn key<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, StepError> {
        let bytes = self.key.as_ref().ok_or(StepError::Key(None))?;
        read(bytes).map_err(|source| StepError::Key(Some(source)))
    }
}

impl Event {
    /// An event of that schema.
    #[must_use]
    pub fn new<T: Encode<()> + ?Sized>(schema: &str, value: &T) -> Self {
        Self { schema: String::from(schema), value: write(value).into() }
    }

    /// The value, as the type that belongs to the schema.
    ///
    /// # Errors
    /// [`StepError::Event`] if it is a value of another type.
    pub fn decode<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, StepError> {
        read(&self.value).map_err(|source| StepError::Event { schema: self.schema.clone(), source })
    }

    /// The answer to an event that the step has no rule for: it was subscribed by mistake.
    #[must_use]
    pub fn unknown(&self) -> StepError {
        StepError::Schema(self.schema.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_what_it_was_written() {
        let context = Context::at(5).with_key("a");
        assert_eq!(context.key::<&str>().unwrap(), "a");
        assert!(matches!(context.key::<u64>(), Err(StepError::Key(Some(_)))));
        assert!(matches!(Context::at(5).key::<u64>(), Err(StepError::Key(None))));
    }

    #[test]
    fn a_value_of_another_type_is_an_error_that_names_the_schema() {
        let event = Event::new("demo/count@1", &7_u64);
        assert_eq!(event.decode::<u64>().unwrap(), 7);
        let error = event.decode::<&str>().unwrap_err();
        assert!(matches!(&error, StepError::Event { schema, .. } if schema == "demo/count@1"), "{error}");
        assert!(matches!(event.unknown(), StepError::Schema(schema) if schema == "demo/count@1"));
    }
}
