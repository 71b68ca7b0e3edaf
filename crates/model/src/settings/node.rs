//! Settings between their sources and their type: a tree that is deserialised into it.
//! Invariant: text takes the type of the field that it goes into; an error carries the way to its field.
//! Leaves to the loader which keys there are.

use std::{collections::BTreeMap, fmt};

use serde::de;
use serde_yaml::Value;

use super::{Origin, SettingsError};

/// Settings on their way into a type.
pub(super) enum Node {
    Section(BTreeMap<String, Node>),
    Leaf(Leaf),
}

pub(super) struct Leaf {
    pub(super) value: LeafValue,
    pub(super) origin: Origin,
}

pub(super) enum LeafValue {
    /// Typed by the file.
    Yaml(Value),
    /// Typed by the field that it goes into.
    Text(String),
}

impl Leaf {
    pub(super) fn text(text: String, origin: Origin) -> Self {
        Self { value: LeafValue::Text(text), origin }
    }
}

impl Node {
    /// Puts `leaf` at a dotted key, over whatever was there.
    pub(super) fn place(&mut self, key: &str, leaf: Leaf) {
        let mut at = self;
        for part in key.split('.') {
            if let Self::Leaf(_) = at {
                *at = Self::Section(BTreeMap::new());
            }
            let Self::Section(map) = at else { return };
            at = map.entry(part.to_owned()).or_insert_with(|| Self::Section(BTreeMap::new()));
        }
        *at = Self::Leaf(leaf);
    }
}

/// Why a value does not fit its field, with the way to it.
#[derive(Debug)]
pub(super) struct ValueError {
    path: Vec<String>,
    origin: Option<Origin>,
    reason: String,
}

impl ValueError {
    pub(super) fn into_settings_error(mut self) -> SettingsError {
        self.path.reverse();
        let key = self.path.join(".");
        match self.origin {
            Some(origin) => SettingsError::Value { key, origin, reason: self.reason },
            None => SettingsError::Incomplete(self.reason),
        }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<M: fmt::Display>(reason: M) -> Self {
        Self { path: Vec::new(), origin: None, reason: reason.to_string() }
    }
}

/// Calls the same method on what a node really is.
macro_rules! by_kind {
    ($node:expr, $visitor:expr, $method:ident $(, $arg:expr)*) => {
        match $node {
            Node::Section(map) => {
                de::value::MapAccessDeserializer::new(Section::new(map)).$method($($arg,)* $visitor)
            }
            Node::Leaf(Leaf { value, origin }) => match value {
                LeafValue::Yaml(value) => value
                    .$method($($arg,)* $visitor)
                    .map_err(<ValueError as de::Error>::custom),
                LeafValue::Text(text) => Text(&text).$method($($arg,)* $visitor),
            }
            .map_err(|error| ValueError { origin: Some(error.origin.unwrap_or(origin)), ..error }),
        }
    };
}

macro_rules! forward_by_kind {
    ($($method:ident)*) => {
        $(fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            by_kind!(self, visitor, $method)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = ValueError;

    forward_by_kind! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_unit_struct, name)
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_newtype_struct, name)
    }

    fn deserialize_tuple<V: de::Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_tuple, len)
    }

    fn deserialize_tuple_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_tuple_struct, name, len)
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_struct, name, fields)
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        by_kind!(self, visitor, deserialize_enum, name, variants)
    }
}

/// The keys of a section, each with its name put on the errors of its value.
struct Section {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<(String, Node)>,
}

impl Section {
    fn new(map: BTreeMap<String, Node>) -> Self {
        Self { rest: map.into_iter(), value: None }
    }
}

impl<'de> de::MapAccess<'de> for Section {
    type Error = ValueError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        self.value = self.rest.next();
        match &self.value {
            Some((key, _)) => seed.deserialize(Text(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, ValueError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(node).map_err(|mut error| {
            error.path.push(key);
            error
        })
    }
}

/// Text that becomes what its field needs.
struct Text<'a>(&'a str);

macro_rules! parse_text {
    ($($method:ident $visit:ident $type:ty;)*) => {
        $(fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self.0.trim().parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(de::Error::custom(format_args!(
                    "{:?} is no {}", self.0, describe::<$type>(),
                ))),
            }
        })*
    };
}

/// What a number of this type may be.
fn describe<N>() -> &'static str {
    match std::any::type_name::<N>() {
        "bool" => "switch, expected true or false",
        "u8" => "whole number from 0 to 255",
        "u16" => "whole number from 0 to 65535",
        "u32" => "whole number from 0 to 4294967295",
        "u64" => "whole number from 0 to 18446744073709551615",
        "f32" | "f64" => "number",
        _ => "whole number in range",
    }
}

impl<'de> de::Deserializer<'de> for Text<'_> {
    type Error = ValueError;

    parse_text! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let items = self.0.split(',').map(str::trim).filter(|item| !item.is_empty());
        visitor.visit_seq(de::value::SeqDeserializer::new(items.map(Text)))
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(de::value::StrDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl de::IntoDeserializer<'_, ValueError> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
