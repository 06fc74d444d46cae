//! JSON, parsed by the browser itself and handed to serde. A reader of text would be loaded by every browser, which has
//! one; and it meets the members of an object in any order, for which each struct needs a second reader beside the one
//! that takes its fields in turn. Here they are looked up by name, in turn.
//!
//! Reads what the types of the wire are made of: structs, tuples, lists, options, text, numbers, flags, and enums whose
//! variants hold nothing or one value. No maps, and nothing whose type only the text could tell.

use crate::feed::few::Few;
use js_sys::{Array, JSON, Object, Reflect};
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error, IntoDeserializer, SeqAccess, VariantAccess, Visitor,
        value::StringDeserializer,
    },
    forward_to_deserialize_any,
};
use std::{
    cell::RefCell,
    fmt::{self, Display},
    rc::Rc,
};
use wasm_bindgen::{JsCast, JsValue};

/// What `text` says; nothing if it isn't JSON of a `T`.
#[must_use]
pub fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(Value(JSON::parse(text).ok()?)).ok()
}

/// It isn't what it should be. Without words: nobody would read them, and every browser would load them.
#[derive(Debug)]
struct Unreadable;

impl Display for Unreadable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Unreadable {}

impl Error for Unreadable {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// A value that JSON can hold, or undefined.
struct Value(JsValue);

impl Value {
    fn is_nothing(&self) -> bool {
        self.0.is_null() || self.0.is_undefined()
    }

    fn text(&self) -> Result<String, Unreadable> {
        self.0.as_string().ok_or(Unreadable)
    }

    fn number(&self) -> Result<f64, Unreadable> {
        self.0.as_f64().ok_or(Unreadable)
    }

    fn whole(&self) -> Result<i64, Unreadable> {
        let number = self.number()?;
        let whole = number as i64;
        if whole as f64 == number { Ok(whole) } else { Err(Unreadable) }
    }

    fn list(&self) -> Result<List, Unreadable> {
        self.0.dyn_ref().cloned().map(|list| List { list, next: 0 }).ok_or(Unreadable)
    }

    fn object(self, names: &'static [&'static str]) -> Result<Fields, Unreadable> {
        self.0.dyn_into().map(|object| Fields { object, names: spelled(names), next: 0 }).map_err(|_| Unreadable)
    }

    fn variant(self) -> Result<Variant, Unreadable> {
        if let Some(name) = self.0.as_string() {
            return Ok(Variant { name, content: Self(JsValue::UNDEFINED) });
        }
        let entries = Object::entries(self.0.dyn_ref().ok_or(Unreadable)?);
        let entry: Array = entries.get(0).dyn_into().map_err(|_| Unreadable)?;
        Ok(Variant { name: Self(entry.get(0)).text()?, content: Self(entry.get(1)) })
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            visitor.visit_i64(self.whole()?)
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            visitor.visit_string(self.text()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
        Err(Unreadable)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_bool(self.0.as_bool().ok_or(Unreadable)?)
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_f64(self.number()?)
    }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.is_nothing() { visitor.visit_unit() } else { Err(Unreadable) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(self.list()?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(self.list()?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(self.object(names)?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self.variant()?)
    }

    forward_to_deserialize_any! { bytes byte_buf unit_struct tuple_struct map ignored_any }
}

/// The rest of a list.
struct List {
    list: Array,
    next: u32,
}

impl List {
    fn step(&mut self) -> Option<Value> {
        let index = self.next;
        self.next += 1;
        (index < self.list.length()).then(|| Value(self.list.get(index)))
    }
}

impl<'de> SeqAccess<'de> for List {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unreadable> {
        self.step().map(|value| seed.deserialize(value)).transpose()
    }
}

/// Names of fields as the browser's own texts.
type Names = Rc<[JsValue]>;

thread_local! {
    /// Those that were made before, by where and how long the list of names is.
    static SPELLED: RefCell<Few<(*const &'static str, usize), Names>> = RefCell::default();
}

/// A struct's names, made once: a transcript has thousands of segments, and to make a text takes longer than to look a
/// field up.
fn spelled(names: &'static [&'static str]) -> Names {
    let place = (names.as_ptr(), names.len());
    SPELLED.with_borrow_mut(|known| match known.get(&place) {
        Some(names) => Rc::clone(names),
        None => {
            let names: Names = names.iter().map(|name| JsValue::from_str(name)).collect();
            known.insert(place, Rc::clone(&names));
            names
        }
    })
}

/// The fields of an object that are still to be read, in the order in which the struct has them.
struct Fields {
    object: Object,
    names: Names,
    next: usize,
}

impl Fields {
    fn step(&mut self) -> Option<Value> {
        let name = self.names.get(self.next)?;
        self.next += 1;
        Reflect::get(&self.object, name).ok().map(Value)
    }
}

impl<'de> SeqAccess<'de> for Fields {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unreadable> {
        let Some(value) = self.step() else { return Ok(None) };
        let missing = value.0.is_undefined();
        match seed.deserialize(value) {
            // Left to the struct: the field has a default, or all is unreadable.
            Err(Unreadable) if missing => Ok(None),
            read => read.map(Some),
        }
    }
}

/// A variant of an enum: its name, or an object with its name and what it holds.
struct Variant {
    name: String,
    content: Value,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Unreadable;
    type Variant = Value;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Value), Unreadable> {
        let name: StringDeserializer<Unreadable> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Value {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        if self.is_nothing() { Ok(()) } else { Err(Unreadable) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unreadable> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Unreadable> {
        Err(Unreadable)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Unreadable> {
        Err(Unreadable)
    }
}
