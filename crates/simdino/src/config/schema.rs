//! The schema of a config type, derived from its `Deserialize` implementation: its keys, and the
//! values that each accepts. A deserializer that supplies the default values records what is
//! requested from it, so that no list of keys has to be maintained by hand.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::Value;

/// The values that a key accepts.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// An integer from `min` to `max`.
    Whole {
        /// Smallest value of the type.
        min: i128,
        /// Largest value of the type.
        max: i128,
    },
    /// Any finite number.
    Number,
    /// Text.
    Text,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list, with this number of elements if the type fixes it.
    List(Box<Kind>, Option<usize>),
    /// The same, or nothing.
    Optional(Box<Kind>),
    /// More keys.
    Section(BTreeMap<&'static str, Kind>),
    /// A type that depends on the value, such as a word or a number.
    Open,
}

/// Returns the schema of `T`.
///
/// # Errors
/// Returns an error if `T` contains something that no config needs, such as a map or a byte
/// string.
pub fn of<T: Serialize + DeserializeOwned + Default>() -> Result<Kind, Unsupported> {
    let defaults = serde_json::to_value(T::default()).map_err(|e| Unsupported(e.to_string()))?;
    let mut kind = Kind::Open;
    T::deserialize(Tracer { default: &defaults, kind: &mut kind })?;
    Ok(kind)
}

/// A config type that this module cannot describe, which is a bug in our code that a test finds.
#[derive(Debug, thiserror::Error)]
#[error("cannot describe a config type: {0}")]
pub struct Unsupported(String);

impl de::Error for Unsupported {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Supplies the default value and records the kind.
struct Tracer<'a> {
    default: &'a Value,
    kind: &'a mut Kind,
}

impl Tracer<'_> {
    fn whole<'de, V: Visitor<'de>>(
        self,
        range: (i128, i128),
        v: V,
    ) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Whole { min: range.0, max: range.1 };
        v.visit_u64(0)
    }
}

/// Methods for the integer types, which differ only in their range.
macro_rules! whole_numbers {
    ($($method:ident $ty:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
            self.whole((<$ty>::MIN.into(), <$ty>::MAX.into()), visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Unsupported;

    whole_numbers!(
        deserialize_i8 i8, deserialize_i16 i16, deserialize_i32 i32, deserialize_i64 i64,
        deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64,
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Open;
        de::Deserializer::deserialize_any(self.default.clone(), visitor).map_err(de::Error::custom)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Bool;
        visitor.visit_bool(false)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Number;
        visitor.visit_f64(0.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Text;
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        let mut inner = Kind::Open;
        let value = visitor.visit_some(Tracer { default: self.default, kind: &mut inner });
        *self.kind = Kind::Optional(Box::new(inner));
        value
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        let mut inner = Kind::Open;
        let value = visitor.visit_seq(Elements { kind: &mut inner, left: 1 });
        *self.kind = Kind::List(Box::new(inner), None);
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        let mut inner = Kind::Open;
        let value = visitor.visit_seq(Elements { kind: &mut inner, left: len });
        *self.kind = Kind::List(Box::new(inner), Some(len));
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        let mut keys = BTreeMap::new();
        let value = visitor.visit_map(Fields { default: self.default, fields, keys: &mut keys });
        *self.kind = Kind::Section(keys);
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        *self.kind = Kind::Words(variants);
        let first: StrDeserializer<'_, Unsupported> =
            variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(first)
    }

    // No config of ours holds these.
    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct map identifier ignored_any
    }
}

/// The keys of a section in order.
struct Fields<'a> {
    default: &'a Value,
    fields: &'static [&'static str],
    keys: &'a mut BTreeMap<&'static str, Kind>,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Unsupported;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unsupported> {
        let Some(name) = self.fields.first() else { return Ok(None) };
        let name: StrDeserializer<'_, Unsupported> = (*name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Unsupported> {
        let Some((&name, rest)) = self.fields.split_first() else {
            return Err(de::Error::custom("a value without a key"));
        };
        self.fields = rest;
        let default = self.default.get(name).unwrap_or(&Value::Null);
        let mut kind = Kind::Open;
        let value = seed.deserialize(Tracer { default, kind: &mut kind });
        self.keys.insert(name, kind);
        value
    }
}

/// The elements of a list, all of the same kind.
struct Elements<'a> {
    kind: &'a mut Kind,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = Unsupported;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unsupported> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Tracer { default: &Value::Null, kind: self.kind }).map(Some)
    }
}
