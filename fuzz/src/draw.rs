//! Types out of bytes: every sequence of bytes is a type and what is left of it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use agentd_air::{Case, Field, Name, Type};

/// Deepest type that is drawn.
const DEEPEST: u32 = 5;

/// Schemas that drawn types refer to.
pub(crate) static SCHEMAS: LazyLock<BTreeMap<Name, Type>> = LazyLock::new(|| {
    let schemas = [
        ("t/leaf@1", r#""dec""#),
        ("t/maybe@1", r#"{"option":"nat"}"#),
        ("t/place@1", r#"{"record":[["x","int"],["y",{"option":"text"}],["z",{"ref":"t/maybe@1"}]]}"#),
        (
            "t/tree@1",
            r#"{"variant":[["leaf"],["one",{"ref":"t/place@1"}],["many",{"list":{"ref":"t/place@1"}}],["none",{"option":"bool"}]]}"#,
        ),
    ];
    let read = |(name, of): (&str, &str)| (name.parse().expect("a name"), serde_json::from_str(of).expect("a type"));
    schemas.map(read).into()
});

/// Takes bytes from the front.
pub(crate) struct Draw<'a>(pub(crate) &'a [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A type with all that it needs to be one, but that an option may hold an option.
    pub(crate) fn of(&mut self) -> Type {
        self.within(DEEPEST)
    }

    fn within(&mut self, levels: u32) -> Type {
        let byte = self.byte();
        let kinds = if levels == 0 { 10 } else { 16 };
        let name = |at: usize| format!("f{at}");
        match byte % kinds {
            0 => Type::Nat,
            1 => Type::Int,
            2 => Type::Bool,
            3 => Type::Dec,
            4 => Type::Bytes,
            5 => Type::Text,
            6 => Type::Time,
            7 => Type::Duration,
            8 => Type::Hash,
            9 => Type::Uuid,
            10 => {
                let count = usize::from(self.byte() % 6);
                Type::Record((0..count).map(|at| Field { name: name(at), of: self.within(levels - 1) }).collect())
            }
            11 => {
                let (count, with) = (usize::from(self.byte() % 5) + 1, self.byte());
                let payload = |at: usize, draw: &mut Self| (with >> at & 1 == 1).then(|| draw.within(levels - 1));
                Type::Variant((0..count).map(|at| Case { name: name(at), payload: payload(at, self) }).collect())
            }
            12 => Type::List(Box::new(self.within(levels - 1))),
            13 => {
                let keys = [Type::Int, Type::Nat, Type::Text, Type::Hash, Type::Uuid];
                let key = keys[usize::from(self.byte()) % keys.len()].clone();
                Type::Map(Box::new(key), Box::new(self.within(levels - 1)))
            }
            14 => Type::Option(Box::new(self.within(levels - 1))),
            _ => {
                let at = usize::from(self.byte()) % SCHEMAS.len();
                Type::Ref(SCHEMAS.keys().nth(at).cloned().expect("there are as many"))
            }
        }
    }
}
