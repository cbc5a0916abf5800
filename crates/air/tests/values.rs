//! Does every value of every type survive each of its forms, and do arbitrary bytes do no harm?

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use std::collections::BTreeMap;

use agentd_air::{
    Case, Dec, Field, Hash, MAX_VALUE_BYTES, MAX_VALUE_PARTS, Name, Resolve, Strictness, Type, Value, What, check,
    decode, encode, encoded_len, from_json, to_json,
};
use minicbor::Encoder;
use minicbor::data::IanaTag;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

fn of(json: serde_json::Value) -> Type {
    Type::from_json(&json).unwrap()
}

fn schemas() -> BTreeMap<Name, Type> {
    BTreeMap::from([
        ("t/line@1".parse().unwrap(), of(json!({"record": [["item", "text"], ["price", {"option": "dec"}]]}))),
        ("t/lines@1".parse().unwrap(), of(json!({"list": {"ref": "t/line@1"}}))),
        ("t/maybe@2".parse().unwrap(), of(json!({"option": "int"}))),
    ])
}

fn key_type() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![Type::Int, Type::Nat, Type::Text, Type::Hash, Type::Uuid])
}

fn any_type() -> impl Strategy<Value = Type> {
    let names = ["t/line@1", "t/lines@1", "t/maybe@2"].map(|name| Type::Ref(name.parse().unwrap()));
    let others = [Type::Bool, Type::Dec, Type::Bytes, Type::Time, Type::Duration];
    let leaf = prop_oneof![key_type(), prop::sample::select(others.to_vec()), prop::sample::select(names.to_vec())];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|types| {
                let fields = types.into_iter().enumerate();
                Type::Record(fields.map(|(at, of)| Field { name: format!("f{at}"), of }).collect())
            }),
            vec(option::of(inner.clone()), 1..5).prop_map(|types| {
                let cases = types.into_iter().enumerate();
                Type::Variant(cases.map(|(at, payload)| Case { name: format!("c{at}"), payload }).collect())
            }),
            inner.clone().prop_map(|of| Type::List(Box::new(of))),
            (key_type(), inner.clone()).prop_map(|(key, of)| Type::Map(Box::new(key), Box::new(of))),
            inner.prop_map(|of| if of.is_optional(&schemas()) { of } else { Type::Option(Box::new(of)) }),
        ]
    })
}

/// Numbers of every size, those at the edges more often.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0u32..64, 0u64..3).prop_map(|(bits, more)| ((1u64 << bits) - 1).saturating_add(more))]
}

fn value_of(of: &Type) -> BoxedStrategy<Value> {
    match of {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int => number().prop_map(|bits| Value::Int(bits.cast_signed())).boxed(),
        Type::Nat => number().prop_map(Value::Nat).boxed(),
        Type::Dec => (-18i64..=18, number())
            .prop_filter_map("in range", |(exponent, bits)| Dec::new(exponent, bits.cast_signed()).ok().map(Value::Dec))
            .boxed(),
        Type::Bytes => vec(any::<u8>(), 0..40).prop_map(Value::Bytes).boxed(),
        Type::Text => ".{0,30}".prop_map(Value::Text).boxed(),
        Type::Time => number().prop_map(Value::Time).boxed(),
        Type::Duration => number().prop_map(Value::Duration).boxed(),
        Type::Hash => any::<[u8; 32]>().prop_map(|bytes| Value::Hash(Hash(bytes))).boxed(),
        Type::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        Type::Record(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| value_of(&field.of)).collect();
            fields.prop_map(Value::Record).boxed()
        }
        Type::Variant(cases) => {
            let cases = (0..).zip(cases).map(|(index, case)| match &case.payload {
                Some(of) => value_of(of).prop_map(move |value| Value::Variant(index, Some(Box::new(value)))).boxed(),
                None => Just(Value::Variant(index, None)).boxed(),
            });
            proptest::strategy::Union::new(cases).boxed()
        }
        Type::List(of) => vec(value_of(of), 0..30).prop_map(Value::List).boxed(),
        Type::Map(key, of) => vec((value_of(key), value_of(of)), 0..6)
            .prop_filter_map("without doubles", |entries| Value::map(entries).ok())
            .boxed(),
        Type::Option(of) => option::of(value_of(of))
            .prop_map(|value| value.map_or(Value::None, |value| Value::Some(Box::new(value))))
            .boxed(),
        Type::Ref(name) => value_of(schemas().schema(name).unwrap()),
    }
}

fn typed_value() -> impl Strategy<Value = (Type, Value)> {
    any_type().prop_flat_map(|of| (Just(of.clone()), value_of(&of)))
}

/// Writes a value in another way than the canonical one: lists and maps without lengths, maps backwards, texts in two pieces,
/// decimal numbers with a zero more, nulls written out.
fn sloppy(value: &Value, e: &mut Encoder<Vec<u8>>) {
    match value {
        Value::Record(items) | Value::List(items) => {
            e.begin_array().unwrap();
            items.iter().for_each(|item| sloppy(item, e));
            e.end().unwrap();
        }
        Value::Variant(index, payload) => {
            e.begin_array().unwrap().u32(*index).unwrap().begin_array().unwrap();
            payload.iter().for_each(|payload| sloppy(payload, e));
            e.end().unwrap().end().unwrap();
        }
        Value::Map(entries) => {
            e.begin_map().unwrap();
            entries.iter().rev().for_each(|(key, value)| {
                sloppy(key, e);
                sloppy(value, e);
            });
            e.end().unwrap();
        }
        Value::Some(value) => sloppy(value, e),
        Value::Text(text) => {
            let (one, other) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
            e.begin_str().unwrap().str(one).unwrap().str(other).unwrap().end().unwrap();
        }
        Value::Bytes(bytes) => {
            e.begin_bytes().unwrap().bytes(bytes).unwrap().end().unwrap();
        }
        Value::Dec(dec) if dec.mantissa().unsigned_abs() < 1 << 59 => {
            let (exponent, mantissa) = (dec.exponent() - 1, dec.mantissa() * 10);
            e.tag(IanaTag::Decimal).unwrap().array(2).unwrap().i8(exponent).unwrap().i64(mantissa).unwrap();
        }
        Value::Nat(number) => {
            e.writer_mut().push(0x1b);
            e.writer_mut().extend(number.to_be_bytes());
        }
        other => {
            e.encode(other).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_type_survives_json_and_cbor(of in any_type()) {
        prop_assert_eq!(of.check(&schemas()), Ok(()));
        let json = serde_json::to_string(&of).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Type>(&json).unwrap(), &of);
        prop_assert_eq!(&minicbor::decode::<Type>(&minicbor::to_vec(&of).unwrap()).unwrap(), &of);
    }

    #[test]
    fn a_value_survives_its_encoding((of, value) in typed_value()) {
        let types = schemas();
        prop_assert_eq!(check(&types, &of, &value), Ok(()));
        let bytes = encode(&value);
        prop_assert_eq!(bytes.len(), encoded_len(&value));
        prop_assert_eq!(&decode(&types, &of, &bytes, Strictness::Canonical).unwrap(), &value);
        prop_assert_eq!(&decode(&types, &of, &bytes, Strictness::Lenient).unwrap(), &value);
    }

    #[test]
    fn a_value_survives_json((of, value) in typed_value()) {
        let types = schemas();
        let text = to_json(&types, &of, &value).unwrap().to_string();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(from_json(&types, &of, &json), Ok(value));
    }

    #[test]
    fn another_encoding_becomes_the_canonical_one((of, value) in typed_value()) {
        let types = schemas();
        let mut e = Encoder::new(Vec::new());
        sloppy(&value, &mut e);
        let bytes = e.into_writer();
        prop_assert_eq!(&decode(&types, &of, &bytes, Strictness::Lenient).unwrap(), &value);
        if bytes != encode(&value) {
            let wrong = decode(&types, &of, &bytes, Strictness::Canonical).unwrap_err();
            prop_assert_eq!(wrong.what, What::NotCanonical);
        }
    }

    #[test]
    fn bytes_that_were_damaged_are_refused_or_mean_something_else(
        (of, value) in typed_value(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let types = schemas();
        let mut bytes = encode(&value);
        for cut in 0..bytes.len().min(40) {
            prop_assert!(decode(&types, &of, &bytes[..cut], Strictness::Lenient).is_err());
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(other) = decode(&types, &of, &bytes, Strictness::Canonical) {
            prop_assert_eq!(check(&types, &of, &other), Ok(()));
            prop_assert_eq!(encode(&other), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(of in any_type(), bytes in vec(any::<u8>(), 0..60)) {
        let types = schemas();
        if let Ok(value) = decode(&types, &of, &bytes, Strictness::Lenient) {
            prop_assert_eq!(check(&types, &of, &value), Ok(()));
            let canonical = encode(&value);
            prop_assert_eq!(decode(&types, &of, &canonical, Strictness::Canonical), Ok(value));
        }
    }

    #[test]
    fn a_value_of_one_type_is_checked_against_another((_, value) in typed_value(), of in any_type()) {
        let types = schemas();
        if check(&types, &of, &value).is_ok() {
            prop_assert_eq!(&decode(&types, &of, &encode(&value), Strictness::Canonical).unwrap(), &value);
        } else {
            prop_assert!(to_json(&types, &of, &value).is_err());
        }
    }
}

#[test]
fn a_value_has_bounds() {
    let types = BTreeMap::new();
    let lenient = |of: &Type, bytes: &[u8]| decode(&types, of, bytes, Strictness::Lenient).map_err(|wrong| wrong.what);
    let long = |len: usize| Value::Bytes(vec![0; len]);
    assert_eq!(check(&types, &Type::Bytes, &long(MAX_VALUE_BYTES - 5)), Ok(()));
    assert_eq!(check(&types, &Type::Bytes, &long(MAX_VALUE_BYTES - 4)).unwrap_err().what, What::TooLong);
    assert_eq!(lenient(&Type::Bytes, &encode(&long(MAX_VALUE_BYTES - 4))), Err(What::TooLong));

    // Without a length: two bytes around 2^20 - 2 items, of which the canonical form would need five.
    let list = Type::List(Box::new(Type::Nat));
    let many = |count: usize| [&[0x9f][..], &vec![0; count], &[0xff]].concat();
    assert!(lenient(&list, &many(MAX_VALUE_PARTS - 1)).is_ok());
    assert_eq!(lenient(&list, &many(MAX_VALUE_PARTS)), Err(What::TooMany));
    let items = Value::List(vec![Value::Nat(0); MAX_VALUE_PARTS]);
    assert_eq!(check(&types, &list, &items).unwrap_err().what, What::TooMany);

    // A byte that stands for 65 values.
    let fields = (0..64).map(|at| Field { name: format!("f{at}"), of: Type::Option(Box::new(Type::Nat)) });
    let records = Type::List(Box::new(Type::Record(fields.collect())));
    let empty = |count: usize| [&[0x9f][..], &vec![0x80; count], &[0xff]].concat();
    assert!(lenient(&records, &empty(4000)).is_ok());
    assert_eq!(lenient(&records, &empty(5000)), Err(What::TooMany));

    // Pieces of bytes, as long as the bytes are allowed to be.
    let pieces = [&[0x5f][..], &[0x40].repeat(MAX_VALUE_BYTES - 2), &[0xff]].concat();
    assert_eq!(lenient(&Type::Bytes, &pieces), Ok(Value::Bytes(Vec::new())));
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let name: Name = "t/loop@1".parse().unwrap();
    let types = BTreeMap::from([(name.clone(), Type::List(Box::new(Type::Ref(name.clone()))))]);
    let wrong = decode(&types, &Type::Ref(name.clone()), &[0x81; 100], Strictness::Lenient).unwrap_err();
    assert_eq!(wrong.what, What::TooDeep);
    let alias = BTreeMap::from([(name.clone(), Type::Ref(name.clone()))]);
    let of = Type::Record(vec![Field { name: "a".to_owned(), of: Type::Ref(name) }]);
    assert!(decode(&alias, &of, &[0x80], Strictness::Lenient).is_err());
    assert!(decode(&alias, &of, &[0x81, 0], Strictness::Lenient).is_err());
}
