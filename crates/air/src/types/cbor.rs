//! Types out of CBOR, with a stack that the bytes cannot exhaust.
//!
//! The derive writes `[index, [parts…]]`. This reads the same by hand, because a derived reader would follow any depth.
//! Lengths must be definite; whether every number is in its shortest form is for those to say who hash the whole.

use minicbor::decode::Error;
use minicbor::{Decode, Decoder};

use super::{Case, Field, MAX_TYPE_DEPTH, Type, TypeFault};

impl<'b, C> Decode<'b, C> for Type {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let start = d.position();
        let of = read(d, MAX_TYPE_DEPTH)?;
        of.check_shape().map_err(|error| Error::message(error).at(start))?;
        Ok(of)
    }
}

fn read(d: &mut Decoder<'_>, levels: usize) -> Result<Type, Error> {
    let levels = levels.checked_sub(1).ok_or_else(|| Error::message(TypeFault::TooDeep(MAX_TYPE_DEPTH)))?;
    exactly(d, 2)?;
    let (index, start) = (d.u32()?, d.position());
    let parts = d.array()?;
    let inner = |d: &mut Decoder<'_>| read(d, levels).map(Box::new);
    let (of, needs) = match index {
        0 => (Type::Bool, 0),
        1 => (Type::Int, 0),
        2 => (Type::Nat, 0),
        3 => (Type::Dec, 0),
        4 => (Type::Bytes, 0),
        5 => (Type::Text, 0),
        6 => (Type::Time, 0),
        7 => (Type::Duration, 0),
        8 => (Type::Hash, 0),
        9 => (Type::Uuid, 0),
        10 => (Type::Record(many(d, |d| field(d, levels))?), 1),
        11 => (Type::Variant(many(d, |d| case(d, levels))?), 1),
        12 => (Type::List(inner(d)?), 1),
        13 => (Type::Map(inner(d)?, inner(d)?), 2),
        14 => (Type::Option(inner(d)?), 1),
        15 => (Type::Ref(d.decode()?), 1),
        _ => return Err(Error::message("there is no type of this number").at(start)),
    };
    if parts == Some(needs) { Ok(of) } else { Err(Error::message("a type of other parts").at(start)) }
}

fn field(d: &mut Decoder<'_>, levels: usize) -> Result<Field, Error> {
    exactly(d, 2)?;
    Ok(Field { name: d.str()?.to_owned(), of: read(d, levels)? })
}

fn case(d: &mut Decoder<'_>, levels: usize) -> Result<Case, Error> {
    let start = d.position();
    let parts = d.array()?;
    let name = d.str()?.to_owned();
    match parts {
        Some(1) => Ok(Case { name, payload: None }),
        Some(2) => Ok(Case { name, payload: Some(read(d, levels)?) }),
        _ => Err(Error::message("a case is a name and a type").at(start)),
    }
}

/// Reads a list of any claimed length, which costs no more than what is really there.
fn many<T>(d: &mut Decoder<'_>, mut one: impl FnMut(&mut Decoder<'_>) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let count = d.array()?.ok_or_else(|| Error::message("a list without its length"))?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(one(d)?);
    }
    Ok(items)
}

fn exactly(d: &mut Decoder<'_>, count: u64) -> Result<(), Error> {
    let start = d.position();
    if d.array()? == Some(count) { Ok(()) } else { Err(Error::message("a list of another length").at(start)) }
}
