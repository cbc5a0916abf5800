//! Is the format still what `docs/format/values.json` says?
//!
//! The file is for every implementation. Each line is one case:
//!
//! - `type`, `json`, `cbor`: the JSON is read to the bytes, the bytes to the value. `written` is the JSON that is written,
//!   where it is not the one that was read.
//! - `type`, `cbor`, `error`: refused as canonical bytes. With `canonical`, lenient reading gives those bytes instead;
//!   without, it refuses too, with the same words.
//! - `type`, `json`, `error`: refused.
//!
//! `schemas` are the schemas that the type refers to.

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use std::collections::BTreeMap;

use agentd_air::{Name, Strictness, Type, check, decode, encode, encoded_len, from_json, to_json};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    about: String,
    #[serde(rename = "type")]
    of: Type,
    #[serde(default)]
    schemas: BTreeMap<Name, Type>,
    #[serde(default, deserialize_with = "present")]
    json: Option<Json>,
    #[serde(default, deserialize_with = "present")]
    written: Option<Json>,
    cbor: Option<String>,
    canonical: Option<String>,
    error: Option<String>,
}

/// A null that is written is there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../docs/format/values.json")).unwrap()
}

#[test]
fn what_is_accepted_has_these_bytes() {
    for vector in vectors().into_iter().filter(|vector| vector.error.is_none()) {
        let Vector { about, of, schemas, json, written, cbor, .. } = vector;
        let (json, cbor) = (json.unwrap(), HEXLOWER.decode(cbor.unwrap().as_bytes()).unwrap());
        let value = from_json(&schemas, &of, &json).unwrap_or_else(|wrong| panic!("{about}: {wrong}"));
        assert_eq!(HEXLOWER.encode(&encode(&value)), HEXLOWER.encode(&cbor), "{about}");
        assert_eq!(encoded_len(&value), cbor.len(), "{about}");
        for strictness in [Strictness::Canonical, Strictness::Lenient] {
            assert_eq!(decode(&schemas, &of, &cbor, strictness).as_ref(), Ok(&value), "{about}");
        }
        assert_eq!(check(&schemas, &of, &value), Ok(()), "{about}");
        assert_eq!(to_json(&schemas, &of, &value), Ok(written.unwrap_or(json)), "{about}");
    }
}

#[test]
fn what_is_refused_is_refused_with_its_place() {
    for Vector { about, of, schemas, json, cbor, canonical, error, .. } in vectors() {
        let Some(error) = error else { continue };
        let Some(cbor) = cbor else {
            let wrong = from_json(&schemas, &of, &json.unwrap()).unwrap_err();
            assert_eq!(wrong.to_string(), error, "{about}");
            continue;
        };
        let bytes = HEXLOWER.decode(cbor.as_bytes()).unwrap();
        assert_eq!(decode(&schemas, &of, &bytes, Strictness::Canonical).unwrap_err().to_string(), error, "{about}");
        match (decode(&schemas, &of, &bytes, Strictness::Lenient), canonical) {
            (Ok(value), Some(canonical)) => assert_eq!(HEXLOWER.encode(&encode(&value)), canonical, "{about}"),
            (Err(wrong), None) => assert_eq!(wrong.to_string(), error, "{about}"),
            (read, _) => panic!("{about}: read leniently as {read:?}"),
        }
    }
}

#[test]
fn every_type_has_a_case() {
    let all: Vec<_> =
        vectors().into_iter().filter(|vector| vector.error.is_none()).map(|vector| vector.of.kind()).collect();
    let kinds = [
        "bool", "int", "nat", "dec", "bytes", "text", "time", "duration", "hash", "uuid", "record", "variant", "list",
        "map", "option", "ref",
    ];
    assert!(kinds.iter().all(|kind| all.contains(kind)));
}
