//! An option that is written as null when it is `None`, also at the end of its record.
//!
//! `minicbor`'s derive leaves out the `None`s at the end of a record. In the value of a schema the world takes both forms;
//! in [`abi`](crate::abi) there is one, so that every field is where the contract says, whatever reads it. When read, null
//! and absent are both `None`.

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

/// Writes the value or null.
pub(crate) fn encode<C, T: Encode<C>, W: Write>(
    value: &Option<T>,
    encoder: &mut Encoder<W>,
    context: &mut C,
) -> Result<(), encode::Error<W::Error>> {
    value.encode(encoder, context)
}

/// Reads the value or null.
pub(crate) fn decode<'b, C, T: Decode<'b, C>>(
    decoder: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Option<T>, decode::Error> {
    Option::decode(decoder, context)
}

/// What an absent field stands for.
#[must_use]
pub(crate) fn nil<T>() -> Option<Option<T>> {
    Some(None)
}

/// Nothing may be left out.
#[must_use]
pub(crate) fn is_nil<T>(_: &Option<T>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use minicbor::{Decode, Encode};

    use crate::value::{read, write};

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Plain {
        #[n(0)]
        number: u64,
        #[n(1)]
        text: Option<String>,
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Whole {
        #[n(0)]
        number: u64,
        #[n(1)]
        #[cbor(with = "crate::or_null", has_nil)]
        text: Option<String>,
    }

    #[test]
    fn a_last_none_is_left_out_unless_it_is_asked_for() {
        assert_eq!(write(&Plain { number: 7, text: None }), [0x81, 7]);
        assert_eq!(write(&Whole { number: 7, text: None }), [0x82, 7, 0xf6]);
        assert_eq!(write(&Whole { number: 7, text: Some("a".into()) }), [0x82, 7, 0x61, b'a']);
    }

    #[test]
    fn null_and_absent_are_none() {
        for bytes in [&[0x81, 7][..], &[0x82, 7, 0xf6]] {
            assert_eq!(read::<Whole>(bytes).unwrap(), Whole { number: 7, text: None });
            assert_eq!(read::<Plain>(bytes).unwrap(), Plain { number: 7, text: None });
        }
        assert_eq!(read::<Whole>(&[0x82, 7, 0x61, b'a']).unwrap(), Whole { number: 7, text: Some("a".into()) });
    }
}
