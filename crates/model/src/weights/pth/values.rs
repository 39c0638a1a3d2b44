//! What a pickle makes: values in an arena, and calls that were noted.

use std::collections::HashMap;
use std::ops::Range;

use super::kinds::kind_of_storage;

/// A value's place in the arena.
pub(super) type Id = u32;

/// A value that the pickle made. Text is a range of the pickle's bytes.
#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 8 bytes, little-endian.
    Long(Range<u32>),
    Float(f64),
    Text(Range<u32>),
    Bytes(Range<u32>),
    /// A class or function by module and name.
    Global(Range<u32>, Range<u32>),
    Tuple(Box<[Id]>),
    /// List, set or frozen set.
    List(Vec<Id>),
    /// Keys and values one after the other.
    Dict(Vec<Id>),
    /// What torch keeps outside of the pickle: a storage.
    Persistent(Id),
    Object(Box<Object>),
}

/// The result of a call or an instantiation that was noted and not made.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// What would have been called.
    pub(super) class: Id,
    /// Its arguments.
    pub(super) args: Id,
    /// What `__setstate__` would have been given.
    pub(super) state: Option<Id>,
    /// Items that would have been set, keys and values one after the other.
    pub(super) items: Vec<Id>,
}

/// A finished pickle: the values it made and its bytes, which their text lies in.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) nodes: Vec<Node>,
    /// The value that the pickle stands for.
    pub(super) root: Id,
    /// Bytes that the pickle took.
    pub(super) len: usize,
}

impl<'a> Pickle<'a> {
    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    /// The bytes of a text, bytes or long node.
    pub(super) fn slice(&self, range: &Range<u32>) -> &'a [u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The text of a node that is one.
    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.node(id) {
            Node::Text(range) | Node::Bytes(range) => std::str::from_utf8(self.slice(range)).ok(),
            _ => None,
        }
    }

    /// The integer of a node that is one.
    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match *self.node(id) {
            Node::Int(value) => Some(value),
            Node::Bool(value) => Some(i64::from(value)),
            _ => None,
        }
    }

    /// Module and name of a node that is a class or a function.
    pub(super) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        let Node::Global(module, name) = self.node(id) else { return None };
        let text = |range| std::str::from_utf8(self.slice(range)).ok();
        Some((text(module)?, text(name)?))
    }

    /// The parts of a node that is a tuple or a list.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(parts) => Some(parts),
            Node::List(parts) => Some(parts),
            _ => None,
        }
    }

    /// Bytes of an element of each storage that the pickle names, by key.
    pub(super) fn storage_widths(&self) -> HashMap<&'a str, u64> {
        let named = self.nodes.iter().filter_map(|node| {
            let Node::Persistent(id) = node else { return None };
            let &[_, class, key, ..] = self.sequence(*id)? else { return None };
            let (_, class) = self.global(class)?;
            let width = kind_of_storage(class).map_or(1, |kind| kind.elt_size_in_bytes() as u64);
            Some((self.text(key)?, width))
        });
        named.collect()
    }
}
