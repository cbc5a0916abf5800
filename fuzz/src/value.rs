//! Values, in CBOR and in JSON, against a type that the first bytes say.

use agentd_air::{Strictness, Type, Value, check, decode, encode, encoded_len, from_json, to_json};

use crate::draw::{Draw, SCHEMAS};

/// A type, and the bytes behind it. None if the type is not one: an option of an option is drawn and refused.
fn typed(data: &[u8]) -> Option<(Type, &[u8])> {
    let mut draw = Draw(data);
    let of = draw.of();
    of.check(&*SCHEMAS).ok()?;
    assert_eq!(Type::from_json(&of.to_json()).as_ref(), Ok(&of), "a type reads back from JSON");
    let bytes = minicbor::to_vec(&of).expect("writing to memory");
    assert_eq!(minicbor::decode::<Type>(&bytes).as_ref().ok(), Some(&of), "a type reads back from CBOR");
    Some((of, draw.0))
}

/// What holds of every value that was read, however it was read.
fn sound(of: &Type, value: &Value) {
    let types = &*SCHEMAS;
    assert_eq!(check(types, of, value), Ok(()), "what is read is of its type");
    let canonical = encode(value);
    assert_eq!(canonical.len(), encoded_len(value), "the length is that of the bytes");
    for strictness in [Strictness::Canonical, Strictness::Lenient] {
        assert_eq!(decode(types, of, &canonical, strictness).as_ref(), Ok(value), "its bytes are its own");
    }
    let json = to_json(types, of, value).expect("what is of its type has a text");
    let read = from_json(types, of, &json).expect("the text of a value is one");
    assert_eq!(&read, value, "a value reads back from its text");
    let text = json.to_string();
    let parsed: serde_json::Value = serde_json::from_str(&text).expect("what is written is JSON");
    assert_eq!(parsed, json, "the text says the same");
}

/// CBOR behind a type: what one of the two strictnesses takes.
pub fn air_value(data: &[u8]) {
    let Some((of, bytes)) = typed(data) else { return };
    let types = &*SCHEMAS;
    let lenient = decode(types, &of, bytes, Strictness::Lenient);
    let canonical = decode(types, &of, bytes, Strictness::Canonical);
    match (&lenient, &canonical) {
        (Ok(value), Ok(same)) => {
            assert_eq!(value, same, "both readings say the same");
            assert_eq!(encode(value), bytes, "canonical is what is written");
        }
        (Ok(value), Err(_)) => assert_ne!(encode(value), bytes, "what would be written is canonical"),
        (Err(_), Err(wrong)) => drop(wrong.to_string()),
        (Err(wrong), Ok(_)) => panic!("canonical and refused: {wrong}"),
    }
    if let Ok(value) = lenient {
        sound(&of, &value);
    }
}

/// JSON behind a type.
pub fn air_json(data: &[u8]) {
    let Some((of, text)) = typed(data) else { return };
    let Ok(json) = serde_json::from_slice(text) else { return };
    match from_json(&*SCHEMAS, &of, &json) {
        Ok(value) => sound(&of, &value),
        Err(wrong) => drop(wrong.to_string()),
    }
}
