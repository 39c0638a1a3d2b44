//! The values of a pickle in an arena, and the recorded calls.

use std::collections::HashMap;
use std::ops::Range;

use super::kinds::width_of_storage;

/// Index of a value in the arena.
pub(super) type Id = u32;

/// A value that the pickle created. Text is a range of the pickle's bytes.
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
    /// Alternating keys and values.
    Dict(Vec<Id>),
    /// A reference to data that torch stores outside of the pickle: a storage.
    Persistent(Id),
    Object(Box<Object>),
}

/// The result of a call or an instantiation that was recorded instead of executed.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// The function or class that would have been called.
    pub(super) class: Id,
    /// Its arguments.
    pub(super) args: Id,
    /// The argument that `__setstate__` would have received.
    pub(super) state: Option<Id>,
    /// Items that would have been set, as alternating keys and values.
    pub(super) items: Vec<Id>,
}

/// A processed pickle: the values it created, and its bytes, which contain their text.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) nodes: Vec<Node>,
    /// The value that the pickle represents.
    pub(super) root: Id,
    /// Number of bytes in the pickle.
    pub(super) len: usize,
}

impl<'a> Pickle<'a> {
    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    /// Returns the bytes of a text, bytes, or long node.
    pub(super) fn slice(&self, range: &Range<u32>) -> &'a [u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Returns the text of a node, if it is text.
    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.node(id) {
            Node::Text(range) | Node::Bytes(range) => std::str::from_utf8(self.slice(range)).ok(),
            _ => None,
        }
    }

    /// Returns the integer of a node, if it is an integer.
    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match *self.node(id) {
            Node::Int(value) => Some(value),
            Node::Bool(value) => Some(i64::from(value)),
            _ => None,
        }
    }

    /// Returns the module and name of a node, if it is a class or a function.
    pub(super) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        let Node::Global(module, name) = self.node(id) else { return None };
        let text = |range| std::str::from_utf8(self.slice(range)).ok();
        Some((text(module)?, text(name)?))
    }

    /// Returns the elements of a node, if it is a tuple or a list.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(parts) => Some(parts),
            Node::List(parts) => Some(parts),
            _ => None,
        }
    }

    /// Returns the element size in bytes of each storage that the pickle names, by key.
    pub(super) fn storage_widths(&self) -> HashMap<&'a str, u64> {
        let named = self.nodes.iter().filter_map(|node| {
            let Node::Persistent(id) = node else { return None };
            let &[_, class, key, ..] = self.sequence(*id)? else { return None };
            let (_, class) = self.global(class)?;
            Some((self.text(key)?, width_of_storage(class)))
        });
        named.collect()
    }
}
