//! Does minicbor's derive write what we call canonical, and read it back?

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use agentd_air::{Dec, Hash, Strictness, Type, decode, encode, from_json};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use serde_json::{Value as Json, json};

#[derive(Debug, PartialEq, Encode, Decode)]
struct Line {
    #[n(0)]
    item: String,
    #[n(1)]
    price: Dec,
}

#[derive(Debug, PartialEq, Encode, Decode)]
enum State {
    #[n(0)]
    Open,
    #[n(1)]
    Cancelled(#[n(0)] String),
    #[n(2)]
    Due(#[n(0)] Option<u64>),
    #[n(3)]
    Shipped(#[n(0)] Line),
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct Order {
    #[n(0)]
    id: ByteArray<16>,
    #[n(1)]
    before: Option<Hash>,
    #[n(2)]
    paid: bool,
    #[n(3)]
    change: i64,
    #[n(4)]
    lines: Vec<Line>,
    #[n(5)]
    states: Vec<State>,
    #[n(6)]
    raw: ByteVec,
    #[n(7)]
    counts: BTreeMap<u64, Vec<Option<i64>>>,
    #[n(8)]
    note: Option<String>,
    #[n(9)]
    parent: Option<Box<Line>>,
}

fn order_type() -> Type {
    let line = json!({"record": [["item", "text"], ["price", "dec"]]});
    let state = json!({"variant": [["open"], ["cancelled", "text"], ["due", {"option": "time"}], ["shipped", line]]});
    Type::from_json(&json!({"record": [
        ["id", "uuid"], ["before", {"option": "hash"}], ["paid", "bool"], ["change", "int"], ["lines", {"list": line}],
        ["states", {"list": state}], ["raw", "bytes"], ["counts", {"map": ["nat", {"list": {"option": "int"}}]}],
        ["note", {"option": "text"}], ["parent", {"option": line}],
    ]}))
    .unwrap()
}

fn line() -> Line {
    Line { item: "x".into(), price: "3.25".parse().unwrap() }
}

fn order() -> Order {
    Order {
        id: [7; 16].into(),
        before: None,
        paid: true,
        change: -300,
        lines: vec![line(), line()],
        states: vec![
            State::Open,
            State::Cancelled("why".into()),
            State::Due(None),
            State::Due(Some(1)),
            State::Shipped(line()),
        ],
        raw: vec![1, 2, 3].into(),
        counts: BTreeMap::from([(1, vec![]), (1000, vec![None, Some(-1), None])]),
        note: None,
        parent: None,
    }
}

/// Checks that both write the same bytes, and that the derive reads ours.
fn same<T: Debug + PartialEq + Encode<()> + for<'b> Decode<'b, ()>>(of: &Type, value: &T) {
    let types = BTreeMap::new();
    let derived = minicbor::to_vec(value).unwrap();
    let read =
        decode(&types, of, &derived, Strictness::Canonical).unwrap_or_else(|wrong| panic!("{wrong} in {value:?}"));
    assert_eq!(encode(&read), derived);
    assert_eq!(&minicbor::decode::<T>(&derived).unwrap(), value);
}

#[test]
fn a_struct_has_the_bytes_of_its_record() {
    same(&order_type(), &order());
    same(&order_type(), &Order { before: Some(Hash([9; 32])), ..order() });
    same(&order_type(), &Order { note: Some("n".into()), ..order() });
    same(&order_type(), &Order { parent: Some(Box::new(line())), ..order() });
}

#[test]
fn an_enum_has_the_bytes_of_its_variant() {
    let Type::Record(fields) = order_type() else { panic!("a record") };
    let Type::List(state) = &fields[5].of else { panic!("a list") };
    order().states.iter().for_each(|value| same(state, value));
}

#[test]
fn a_struct_reads_what_came_from_json() {
    let json: Json = json!({
        "id": "07070707-0707-0707-0707-070707070707", "paid": true, "change": -300,
        "lines": [{"item": "x", "price": "3.25"}, {"item": "x", "price": "3.250"}],
        "states": ["open", {"cancelled": "why"}, {"due": null}, {"due": 1}, {"shipped": {"item": "x", "price": "3.25"}}],
        "raw": "AQID", "counts": [[1000, [null, -1, null]], [1, []]],
    });
    let value = from_json(&BTreeMap::new(), &order_type(), &json).unwrap();
    assert_eq!(minicbor::decode::<Order>(&encode(&value)).unwrap(), order());
}

#[test]
fn a_rust_map_of_texts_is_in_another_order_and_is_read_leniently() {
    let types = BTreeMap::new();
    let of = Type::from_json(&json!({"map": ["text", "nat"]})).unwrap();
    let bytes = minicbor::to_vec(BTreeMap::from([("aa", 1), ("b", 2)])).unwrap();
    assert!(decode(&types, &of, &bytes, Strictness::Canonical).is_err());
    let value = decode(&types, &of, &bytes, Strictness::Lenient).unwrap();
    assert_eq!(value, from_json(&types, &of, &json!({"aa": 1, "b": 2})).unwrap());
}
