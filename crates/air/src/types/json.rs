//! Types as people write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value as Json, json};

use super::{Case, Field, MAX_TYPE_DEPTH, Type, TypeError, TypeFault};
use crate::path::{Step, quoted};

const SCALARS: [(&str, Type); 10] = [
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("nat", Type::Nat),
    ("dec", Type::Dec),
    ("bytes", Type::Bytes),
    ("text", Type::Text),
    ("time", Type::Time),
    ("duration", Type::Duration),
    ("hash", Type::Hash),
    ("uuid", Type::Uuid),
];

impl Type {
    /// Reads the form that people write, and checks its shape.
    pub fn from_json(json: &Json) -> Result<Type, TypeError> {
        let of = read(json, MAX_TYPE_DEPTH)?;
        of.check_shape()?;
        Ok(of)
    }

    /// Writes the form that people write.
    pub fn to_json(&self) -> Json {
        match self {
            Type::Record(fields) => {
                json!({ "record": fields.iter().map(|field| json!([field.name, field.of.to_json()])).collect::<Json>() })
            }
            Type::Variant(cases) => json!({ "variant": cases.iter().map(case_json).collect::<Json>() }),
            Type::List(of) => json!({ "list": of.to_json() }),
            Type::Map(key, of) => json!({ "map": [key.to_json(), of.to_json()] }),
            Type::Option(of) => json!({ "option": of.to_json() }),
            Type::Ref(name) => json!({ "ref": name }),
            scalar => json!(scalar.kind()),
        }
    }
}

impl Serialize for Type {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Type::from_json(&Json::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn case_json(case: &Case) -> Json {
    match &case.payload {
        Some(of) => json!([case.name, of.to_json()]),
        None => json!([case.name]),
    }
}

fn read(json: &Json, levels: usize) -> Result<Type, TypeError> {
    let levels = levels.checked_sub(1).ok_or(TypeFault::TooDeep(MAX_TYPE_DEPTH))?;
    let inner = |json: &Json, step: Step| read(json, levels).map(Box::new).map_err(|error| error.within(step));
    let (form, of) = match json {
        Json::String(text) => {
            let found = SCALARS.iter().find(|(name, _)| name == text);
            return found.map(|(_, of)| of.clone()).ok_or_else(|| TypeFault::Unknown(quoted(text)).into());
        }
        Json::Object(object) => match object.iter().next() {
            Some((form, of)) if object.len() == 1 => (form.as_str(), of),
            _ => return Err(TypeFault::Unknown(quoted(&json.to_string())).into()),
        },
        _ => return Err(TypeFault::Unknown(quoted(&json.to_string())).into()),
    };
    match form {
        "record" => pairs("record", of, |pair| match pair {
            [Json::String(name), of] => Some((name, Some(of))),
            _ => None,
        })?
        .map(|(name, of)| {
            let of = inner(of.unwrap_or(&Json::Null), Step::Field(name.clone()))?;
            Ok(Field { name: name.clone(), of: *of })
        })
        .collect::<Result<_, _>>()
        .map(Type::Record),
        "variant" => pairs("variant", of, |pair| match pair {
            [Json::String(name)] => Some((name, None)),
            [Json::String(name), of] => Some((name, Some(of))),
            _ => None,
        })?
        .map(|(name, of)| {
            let payload = of.map(|of| inner(of, Step::Field(name.clone()))).transpose()?;
            Ok(Case { name: name.clone(), payload: payload.map(|of| *of) })
        })
        .collect::<Result<_, _>>()
        .map(Type::Variant),
        "list" => Ok(Type::List(inner(of, Step::Key(String::new()))?)),
        "map" => match of.as_array().map(Vec::as_slice) {
            Some([key, to]) => {
                Ok(Type::Map(inner(key, Step::Key("key".to_owned()))?, inner(to, Step::Key("value".to_owned()))?))
            }
            _ => Err(TypeFault::Form { form: "map", needs: "[key type, value type]" }.into()),
        },
        "option" => Ok(Type::Option(inner(of, Step::Field("some".to_owned()))?)),
        "ref" => match of.as_str().and_then(|text| text.parse().ok()) {
            Some(name) => Ok(Type::Ref(name)),
            None => Err(TypeFault::Form { form: "ref", needs: "the name of a schema, \"ns/name@1\"" }.into()),
        },
        other => Err(TypeFault::Unknown(quoted(other)).into()),
    }
}

/// A name, and the type that was written with it.
type Pair<'a> = (&'a String, Option<&'a Json>);

/// Reads the list of fields or of cases.
fn pairs<'a>(
    form: &'static str,
    json: &'a Json,
    pair: impl Fn(&'a [Json]) -> Option<Pair<'a>>,
) -> Result<impl Iterator<Item = Pair<'a>>, TypeError> {
    let needs = if form == "record" { "[[name, type], …]" } else { "[[name], [name, type], …]" };
    let list = json.as_array().ok_or(TypeFault::Form { form, needs })?;
    let read = list.iter().map(|item| item.as_array().and_then(|item| pair(item)));
    let read: Option<Vec<_>> = read.collect();
    Ok(read.ok_or(TypeFault::Form { form, needs })?.into_iter())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Name;

    fn of(json: Json) -> Type {
        Type::from_json(&json).unwrap()
    }

    fn refusal(json: Json) -> String {
        Type::from_json(&json).unwrap_err().to_string()
    }

    #[test]
    fn a_type_reads_back_from_json_and_from_cbor() {
        let forms = json!([
            "bool", "int", "nat", "dec", "bytes", "text", "time", "duration", "hash", "uuid",
            {"record": []},
            {"record": [["z", "int"], ["a", {"list": {"option": "text"}}]]},
            {"variant": [["open"], ["cancelled", "text"], ["moved", {"ref": "shop/place@2"}]]},
            {"map": ["uuid", {"map": ["text", {"record": [["x", "bytes"]]}]}]},
        ]);
        for form in forms.as_array().unwrap() {
            let read = of(form.clone());
            assert_eq!(&serde_json::to_value(&read).unwrap(), form);
            let bytes = minicbor::to_vec(&read).unwrap();
            assert_eq!(minicbor::decode::<Type>(&bytes).unwrap(), read, "{form}");
            for cut in 0..bytes.len() {
                assert!(minicbor::decode::<Type>(&bytes[..cut]).is_err(), "{form} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_encoding_of_a_type_is_what_was_fixed() {
        let hex = |json| data_encoding::HEXLOWER.encode(&minicbor::to_vec(of(json)).unwrap());
        assert_eq!(hex(json!("nat")), "820280");
        assert_eq!(hex(json!({"variant": [["a"], ["b", "text"]]})), "820b81828161618261628205 80".replace(' ', ""));
        assert_eq!(hex(json!({"map": ["int", {"ref": "a/b@1"}]})), "820d82820180820f8165612f624031");
    }

    #[test]
    fn a_refusal_names_the_place() {
        let cases = [
            (json!("number"), r#""number" is not a type"#),
            (json!({"record": [["a", {"list": "str"}]]}), r#"a[]: "str" is not a type"#),
            (json!({"record": {"a": "int"}}), "record needs [[name, type], …]"),
            (json!({"record": [["a"]]}), "record needs [[name, type], …]"),
            (json!({"record": [["a", "int"], ["a", "int"]]}), "a is there twice"),
            (json!({"record": [["A", "int"]]}), r#""A" is not a field name"#),
            (json!({"variant": []}), "a variant needs a case"),
            (json!({"map": ["dec", "int"]}), "a key is int, nat"),
            (json!({"map": ["text"]}), "map needs [key type, value type]"),
            (json!({"record": [["a", {"option": {"option": "int"}}]]}), "a: an option of an option"),
            (json!({"ref": "Shop/x@1"}), "ref needs the name of a schema"),
            (json!({"list": "int", "map": []}), "is not a type"),
            (json!(null), "\"null\" is not a type"),
        ];
        for (json, says) in cases {
            let said = refusal(json.clone());
            assert!(said.contains(says), "{json}: {said}");
        }
    }

    #[test]
    fn a_type_has_bounds() {
        let deep = |levels| (1..levels).fold(json!("int"), |inner, _| json!({ "list": inner }));
        assert!(Type::from_json(&deep(MAX_TYPE_DEPTH)).is_ok());
        assert!(refusal(deep(MAX_TYPE_DEPTH + 1)).contains("nested deeper than 16"));
        let wide = |count: usize| (0..count).map(|n| json!([format!("f{n}"), "int"])).collect::<Json>();
        assert!(Type::from_json(&json!({"record": wide(64)})).is_ok());
        assert!(refusal(json!({"record": wide(65)})).contains("more than 64"));
        assert!(refusal(json!({"variant": wide(65)})).contains("more than 64"));
        let large: Json = (0..16).map(|n| json!([format!("f{n}"), {"record": wide(64)}])).collect();
        assert!(refusal(json!({ "record": large })).contains("more than 1024 types"));
        let bytes = [[0x82, 0x0c, 0x81].repeat(100_000), vec![0x82, 0x00, 0x80]].concat();
        assert!(minicbor::decode::<Type>(&bytes).is_err());
    }

    #[test]
    fn what_a_type_refers_to_exists_and_does_not_come_back() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let types = BTreeMap::from([
            (name("t/leaf@1"), of(json!("int"))),
            (name("t/maybe@1"), of(json!({"option": "int"}))),
            (name("t/alias@1"), of(json!({"ref": "t/maybe@1"}))),
            (name("t/a@1"), of(json!({"list": {"ref": "t/b@1"}}))),
            (name("t/b@1"), of(json!({"record": [["back", {"ref": "t/a@1"}]]}))),
            (name("t/gap@1"), of(json!({"record": [["x", {"ref": "t/none@1"}]]}))),
        ]);
        let check = |json| of(json).check(&types).map_err(|error| error.to_string());
        assert_eq!(check(json!({"record": [["x", {"ref": "t/leaf@1"}], ["y", {"ref": "t/alias@1"}]]})), Ok(()));
        assert_eq!(check(json!({"ref": "t/a@1"})).unwrap_err(), "[].back: schema t/a@1 refers to itself");
        assert_eq!(check(json!({"list": {"ref": "t/gap@1"}})).unwrap_err(), "[].x: there is no schema t/none@1");
        assert_eq!(check(json!({"option": {"ref": "t/alias@1"}})).unwrap_err(), "an option of an option");
    }

    #[test]
    fn depth_counts_through_schemas() {
        let name = |n: usize| format!("t/n{n}@1").parse::<Name>().unwrap();
        let chain = |count: usize| {
            let mut types = BTreeMap::from([(name(0), Type::Int)]);
            types.extend((1..count).map(|n| (name(n), Type::List(Box::new(Type::Ref(name(n - 1)))))));
            Type::Ref(name(count - 1)).check(&types)
        };
        assert_eq!(chain(16), Ok(()));
        assert!(chain(17).unwrap_err().to_string().contains("nested deeper than 32"));
        // Each name twice on each of 40 levels: a walk that did not remember would never end.
        let mut types = BTreeMap::from([(name(0), Type::Int)]);
        let field = |field: &str, n| Field { name: field.to_owned(), of: Type::Ref(name(n)) };
        types.extend((1..40).map(|n| (name(n), Type::Record(vec![field("a", n - 1), field("b", n - 1)]))));
        assert!(Type::Ref(name(39)).check(&types).is_err());
        assert_eq!(Type::Ref(name(15)).check(&types), Ok(()));
    }
}
