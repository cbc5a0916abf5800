//! A value and its bytes.
//!
//! A value of a schema is one CBOR item. `minicbor`'s derive writes a record as an array in the order of its `#[n(i)]`, and a
//! variant as `[index, [value]]` or `[index, []]`, which is what the world wants. It leaves out the `None`s at the end of a
//! record, and writes a map in the map's own order; the world takes that too, and records one form.

use core::convert::Infallible;

use alloc::vec::Vec;

use minicbor::{Decode, Encode, decode, encode};

/// Reads one value, and nothing behind it.
pub(crate) fn read<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(decode::Error::message("bytes behind the value"));
    }
    Ok(value)
}

/// Writes a value.
///
/// # Panics
/// If the type's own `Encode` refuses; derived ones never do, and memory does not.
pub(crate) fn write<T: Encode<()> + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written: Result<(), encode::Error<Infallible>> = minicbor::encode(value, &mut bytes);
    assert!(written.is_ok(), "a value can be written");
    bytes
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[derive(Encode)]
    struct Plain {
        #[n(0)]
        number: u64,
        #[n(1)]
        text: String,
    }

    #[derive(Encode)]
    enum Phase {
        #[n(0)]
        Open,
        #[n(1)]
        Closed(#[n(0)] u64),
    }

    #[test]
    fn a_record_is_an_array_and_a_variant_is_a_pair() {
        assert_eq!(write(&Plain { number: 7, text: "a".into() }), [0x82, 7, 0x61, b'a']);
        assert_eq!(write(&Phase::Open), [0x82, 0, 0x80]);
        assert_eq!(write(&Phase::Closed(24)), [0x82, 1, 0x81, 0x18, 24]);
    }

    #[test]
    fn bytes_behind_a_value_are_refused() {
        assert_eq!(read::<u64>(&[7]).unwrap(), 7);
        assert!(read::<u64>(&[7, 7]).is_err());
        assert!(read::<u64>(&[]).is_err());
    }
}
