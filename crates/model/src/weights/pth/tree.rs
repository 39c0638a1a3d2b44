//! Converts the values of a pickle to tensors and entries by name.

use std::collections::BTreeMap;

use tch::Kind;

use super::error::{PthError, Result};
use super::kinds::{kind_of_dtype, kind_of_storage, width_of_storage};
use super::values::{Id, Node, Object, Pickle};
use crate::weights::stored::{Extent, StoredTensor};

/// Maximum number of tensors in a file; the largest network with its teacher and the state of the
/// optimizer has 3,000.
pub(super) const MAX_TENSORS: usize = 65_536;
/// Maximum number of entries kept besides tensors.
const MAX_VALUES: usize = 4096;
/// Number of characters kept of each entry.
const MAX_VALUE_LEN: usize = 200;
/// Longest key of a tensor.
const MAX_KEY: usize = 1024;
/// Deepest nesting of dictionaries.
const MAX_DEPTH: usize = 32;
/// Maximum number of visited values; a shared value is visited once for each place where it
/// occurs.
const MAX_VISITS: usize = 4_000_000;

/// A function that returns the position of a storage, given its key and its minimum size in bytes.
pub(super) type FindStorage<'a> = dyn Fn(&str, u64) -> Result<Extent> + 'a;

/// Tensors and entries by key, with key components joined by dots.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    pub(super) values: BTreeMap<String, String>,
}

/// Searches all dictionaries and lists of a pickle.
pub(super) fn collect(pickle: &Pickle<'_>, find_storage: &FindStorage<'_>) -> Result<Found> {
    let mut walk = Walk { pickle, find_storage, found: Found::default(), visits: 0 };
    walk.visit("", pickle.root, 0)?;
    Ok(walk.found)
}

struct Walk<'a, 'b> {
    pickle: &'a Pickle<'b>,
    find_storage: &'a FindStorage<'a>,
    found: Found,
    visits: usize,
}

impl Walk<'_, '_> {
    fn visit(&mut self, key: &str, id: Id, depth: usize) -> Result<()> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(PthError::Limit { what: "values", limit: MAX_VISITS });
        }
        if depth > MAX_DEPTH {
            return Err(PthError::Limit { what: "levels of nesting", limit: MAX_DEPTH });
        }
        let pickle = self.pickle;
        match pickle.node(id) {
            Node::Dict(items) => self.items(key, items, depth),
            Node::List(parts) => self.parts(key, parts, depth),
            Node::Tuple(parts) => self.parts(key, parts, depth),
            Node::Object(object) => self.object(key, object, depth),
            Node::Persistent(_) | Node::None => Ok(()),
            Node::Bool(value) => self.value(key, &value.to_string()),
            Node::Int(value) => self.value(key, &value.to_string()),
            Node::Float(value) => self.value(key, &value.to_string()),
            Node::Text(range) => self.value(key, &String::from_utf8_lossy(pickle.slice(range))),
            Node::Bytes(_) | Node::Long(_) | Node::Global(..) => Ok(()),
        }
    }

    fn items(&mut self, key: &str, items: &[Id], depth: usize) -> Result<()> {
        for pair in items.chunks_exact(2) {
            let name = match self.pickle.text(pair[0]) {
                Some(text) => text.to_owned(),
                None => match self.pickle.int(pair[0]) {
                    Some(number) => number.to_string(),
                    None => continue, // a key that cannot be part of a name
                },
            };
            self.visit(&join(key, &name)?, pair[1], depth + 1)?;
        }
        Ok(())
    }

    fn parts(&mut self, key: &str, parts: &[Id], depth: usize) -> Result<()> {
        for (index, &part) in parts.iter().enumerate() {
            self.visit(&join(key, &index.to_string())?, part, depth + 1)?;
        }
        Ok(())
    }

    fn object(&mut self, key: &str, object: &Object, depth: usize) -> Result<()> {
        match self.pickle.global(object.class) {
            Some(("torch._utils", function)) => self.rebuilt(key, function, object, depth),
            Some(("torch._tensor", "_rebuild_from_type_v2")) => self.subclass(key, object, depth),
            Some(("collections", "OrderedDict" | "defaultdict")) => {
                self.items(key, &object.items, depth)
            }
            class => self.opaque(key, class, object, depth),
        }
    }

    /// Visits an object of an unknown class. Its items, the attributes of a namespace, and the
    /// parts of a module are searched; the object itself is not built.
    fn opaque(
        &mut self,
        key: &str,
        class: Option<(&str, &str)>,
        object: &Object,
        depth: usize,
    ) -> Result<()> {
        if !object.items.is_empty() {
            return self.items(key, &object.items, depth);
        }
        let state = object.state.map(|state| self.pickle.node(state));
        let Some(Node::Dict(attributes)) = state else { return self.class(key, class) };
        if class == Some(("argparse", "Namespace")) {
            return self.items(key, attributes, depth);
        }
        match self.module(attributes) {
            Some(parts) => parts.into_iter().try_for_each(|part| self.visit(key, part, depth + 1)),
            None => self.class(key, class),
        }
    }

    /// Returns the parameters, buffers, and children of a module that was saved as an object;
    /// `None` if the attributes are not those of a module.
    fn module(&self, attributes: &[Id]) -> Option<Vec<Id>> {
        let of = |name: &str| {
            attributes.chunks_exact(2).find(|pair| self.pickle.text(pair[0]) == Some(name))
        };
        let parts = [of("_parameters")?[1], of("_buffers")?[1], of("_modules")?[1]];
        Some(parts.to_vec())
    }

    fn class(&mut self, key: &str, class: Option<(&str, &str)>) -> Result<()> {
        match class {
            Some((module, name)) => self.value(key, &format!("<{module}.{name}>")),
            None => Ok(()),
        }
    }

    fn value(&mut self, key: &str, value: &str) -> Result<()> {
        if self.found.values.len() < MAX_VALUES {
            let value = value.chars().take(MAX_VALUE_LEN).collect();
            self.found.values.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// Visits a call of `_rebuild_tensor_v2(storage, offset, size, stride, ..)` or of a similar
    /// function.
    fn rebuilt(&mut self, key: &str, function: &str, object: &Object, depth: usize) -> Result<()> {
        let args = self.pickle.sequence(object.args).unwrap_or_default();
        match (function, args) {
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", &[data, ..]) => {
                self.visit(key, data, depth + 1)
            }
            ("_rebuild_tensor_v2", &[_, _, _, _, _, _, metadata, ..])
            | ("_rebuild_tensor_v3", &[_, _, _, _, _, _, _, metadata, ..])
                if self.is_view(metadata) =>
            {
                let problem = "whose negative or conjugate bit is set, so that its values are not \
                               those of the file: save it again after resolve_neg() or resolve_conj()";
                Err(PthError::Tensor { name: key.to_owned(), problem })
            }
            ("_rebuild_tensor" | "_rebuild_tensor_v2", &[storage, offset, size, stride, ..]) => {
                self.tensor(key, [storage, offset, size, stride], None)
            }
            ("_rebuild_tensor_v3", &[storage, offset, size, stride, _, _, dtype, ..]) => {
                self.tensor(key, [storage, offset, size, stride], Some(dtype))
            }
            _ => self.class(key, Some(("torch._utils", function))), // quantized, sparse and others
        }
    }

    /// Returns whether the last argument of torch's rebuild functions marks the tensor as the
    /// negative (`neg`) or the conjugate (`conj`) of its storage.
    fn is_view(&self, metadata: Id) -> bool {
        let items = match self.pickle.node(metadata) {
            Node::Dict(items) => items,
            Node::Object(object) => &object.items,
            _ => return false,
        };
        items.chunks_exact(2).any(|pair| {
            let bit = matches!(self.pickle.text(pair[0]), Some("neg" | "conj"));
            bit && !matches!(self.pickle.node(pair[1]), Node::Bool(false))
        })
    }

    /// Visits a call of `_rebuild_from_type_v2(function, type, args, state)`, which rebuilds a
    /// tensor of a subclass.
    fn subclass(&mut self, key: &str, object: &Object, depth: usize) -> Result<()> {
        let Some(&[function, _, args, ..]) = self.pickle.sequence(object.args) else {
            return Ok(());
        };
        match self.pickle.global(function) {
            Some(("torch._utils", name)) => {
                let inner = Object { class: function, args, state: None, items: Vec::new() };
                let name = name.to_owned();
                self.rebuilt(key, &name, &inner, depth)
            }
            _ => Ok(()),
        }
    }

    fn tensor(&mut self, key: &str, parts: [Id; 4], dtype: Option<Id>) -> Result<()> {
        let bad = |problem| PthError::Tensor { name: key.to_owned(), problem };
        let [storage, offset, size, stride] = parts;
        let (kind, extent) = self.storage(key, storage, dtype)?;
        let Some(kind) = kind else { return self.value(key, "<a tensor of an unsupported dtype>") };
        let numbers = |id: Id| -> Option<Vec<i64>> {
            self.pickle.sequence(id)?.iter().map(|&part| self.pickle.int(part)).collect()
        };
        let numbers = (self.pickle.int(offset), numbers(size), numbers(stride));
        let (Some(first), Some(shape), Some(strides)) = numbers else {
            return Err(bad("whose size, stride or offset is not a number"));
        };
        let tensor = StoredTensor { kind, shape, strides, first, storage: extent };
        tensor.check().map_err(bad)?;
        if self.found.tensors.len() >= MAX_TENSORS {
            return Err(PthError::Limit { what: "tensors", limit: MAX_TENSORS });
        }
        if self.found.tensors.insert(key.to_owned(), tensor).is_some() {
            return Err(bad("that occurs twice"));
        }
        Ok(())
    }

    /// Resolves `("storage", class, key, device, elements)` to the kind of the elements, if it is
    /// supported, and the position of the storage.
    fn storage(&self, name: &str, id: Id, dtype: Option<Id>) -> Result<(Option<Kind>, Extent)> {
        let bad = |problem| PthError::Tensor { name: name.to_owned(), problem };
        let pickle = self.pickle;
        let parts = match pickle.node(id) {
            Node::Persistent(id) => pickle.sequence(*id),
            _ => None,
        };
        let Some(&[tag, class, key, _, elements, ref view @ ..]) = parts else {
            return Err(bad("without a storage"));
        };
        if view.first().is_some_and(|&view| !matches!(pickle.node(view), Node::None)) {
            return Err(bad("in a part of another storage, as old versions of torch wrote them"));
        }
        let (Some("storage"), Some((_, class)), Some(key)) =
            (pickle.text(tag), pickle.global(class), pickle.text(key))
        else {
            return Err(bad("without a storage"));
        };
        let of_storage = kind_of_storage(class);
        let kind = match dtype {
            Some(dtype) => pickle.global(dtype).and_then(|(_, name)| kind_of_dtype(name)),
            None => of_storage,
        };
        // `elements` counts elements of the storage's own type, not of `dtype`.
        let width = width_of_storage(class);
        let elements = pickle.int(elements).and_then(|count| u64::try_from(count).ok());
        let bytes = elements.and_then(|count| count.checked_mul(width));
        let bytes = bytes.ok_or_else(|| bad("whose storage has an impossible size"))?;
        let extent = (self.find_storage)(key, bytes)?;
        Ok((kind, Extent { len: bytes.min(extent.len), ..extent }))
    }
}

fn join(key: &str, name: &str) -> Result<String> {
    if key.len() + name.len() > MAX_KEY {
        return Err(PthError::Limit { what: "characters in a key", limit: MAX_KEY });
    }
    Ok(if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") })
}
