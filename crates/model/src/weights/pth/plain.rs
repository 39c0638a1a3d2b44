//! Reads pickles of plain values, such as lists of numbers, as JSON values.

use serde_json::{Map, Number, Value};

use super::error::{PthError, Result};
use super::machine;
use super::values::{Id, Node, Object, Pickle};

/// Longest pickle, in bytes.
const MOST_BYTES: usize = 64 << 20;
/// Bytes of memory allowed per byte of a pickle: an integer takes at least two bytes in the pickle,
/// and a value takes 24 bytes in memory.
const MEMORY: usize = 64;
/// Bytes of memory allowed in addition, whatever the length of the pickle.
const MEMORY_FLOOR: usize = 4 << 20;
/// Maximum number of values; a shared value counts for each place where it occurs.
const MOST_VALUES: usize = 10_000_000;
/// Deepest nesting.
const MOST_LEVELS: usize = 32;

/// Reads a pickle (protocol 2 or later) of plain values without executing anything: numbers, text,
/// lists, tuples, dictionaries whose keys are text, and numpy's one-dimensional arrays and scalars.
///
/// # Errors
/// Returns an error if the pickle is damaged, is too large, or contains values of other kinds.
pub fn read_plain_pickle(bytes: &[u8]) -> Result<Value> {
    if bytes.first() != Some(&machine::PROTO) {
        return Err(PthError::Format("it does not begin with a pickle of protocol 2 or later"));
    }
    if bytes.len() > MOST_BYTES {
        return Err(PthError::Limit { what: "bytes of pickle", limit: MOST_BYTES });
    }
    let pickle = machine::run(bytes, bytes.len() * MEMORY + MEMORY_FLOOR)?;
    let mut walk = Walk { pickle: &pickle, left: MOST_VALUES };
    walk.value(pickle.root, 0)
}

struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    left: usize,
}

impl Walk<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<Value> {
        let limit = |what, limit| Err(PthError::Limit { what, limit });
        let Some(left) = self.left.checked_sub(1) else { return limit("values", MOST_VALUES) };
        self.left = left;
        if depth > MOST_LEVELS {
            return limit("levels of nesting", MOST_LEVELS);
        }
        Ok(match self.pickle.node(id) {
            Node::None => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::from(*value),
            Node::Long(range) => Value::from(long(self.pickle.slice(range))?),
            Node::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Node::Text(_) | Node::Bytes(_) => match self.pickle.text(id) {
                Some(text) => Value::from(text),
                None => return Err(PthError::Format("it has text that is not UTF-8")),
            },
            Node::Tuple(parts) => self.list(parts, depth)?,
            Node::List(parts) => self.list(parts, depth)?,
            Node::Dict(items) => {
                let mut map = Map::new();
                for pair in items.as_chunks::<2>().0 {
                    let Some(key) = self.pickle.text(pair[0]) else {
                        return Err(PthError::Format(
                            "it has a dictionary whose keys are not text",
                        ));
                    };
                    map.insert(key.to_owned(), self.value(pair[1], depth + 1)?);
                }
                Value::Object(map)
            }
            Node::Object(object) => self.numpy(object)?,
            Node::Global(..) | Node::Persistent(_) => return Err(OTHER),
        })
    }

    fn list(&mut self, parts: &[Id], depth: usize) -> Result<Value> {
        let values = parts.iter().map(|&part| self.value(part, depth + 1));
        values.collect::<Result<_>>().map(Value::Array)
    }

    /// Converts an array or a scalar of numpy.
    fn numpy(&mut self, object: &Object) -> Result<Value> {
        let pickle = self.pickle;
        let (module, name) = pickle.global(object.class).ok_or(OTHER)?;
        if !module.starts_with("numpy.") {
            return Err(OTHER);
        }
        match (
            name,
            object.state.and_then(|state| pickle.sequence(state)),
            pickle.sequence(object.args),
        ) {
            ("_reconstruct", Some(&[_, shape, dtype, _, data]), _) => {
                let shape = pickle.sequence(shape).ok_or(OTHER)?;
                if shape.len() != 1 {
                    return Err(PthError::Format("it has an array that is not one-dimensional"));
                }
                Ok(Value::Array(self.numbers(dtype, data)?))
            }
            ("scalar", _, Some(&[dtype, data])) => self.numbers(dtype, data)?.pop().ok_or(OTHER),
            _ => Err(OTHER),
        }
    }

    /// Decodes bytes as numbers of a dtype.
    fn numbers(&mut self, dtype: Id, data: Id) -> Result<Vec<Value>> {
        let pickle = self.pickle;
        let Node::Object(object) = pickle.node(dtype) else { return Err(OTHER) };
        let args = pickle.sequence(object.args).ok_or(OTHER)?;
        let kind = args.first().and_then(|&kind| pickle.text(kind)).ok_or(OTHER)?;
        let state = object.state.and_then(|state| pickle.sequence(state));
        if state.and_then(|state| pickle.text(*state.get(1)?)) == Some(">") {
            return Err(PthError::BigEndian);
        }
        let data = self.bytes(data)?;
        if data.len() > self.left {
            return Err(PthError::Limit { what: "values", limit: MOST_VALUES });
        }
        self.left -= data.len();
        Ok(match kind {
            "i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b).into()).collect(),
            "i4" => data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            "u4" => data.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b).into()).collect(),
            "f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b).into()).collect(),
            "f4" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            _ => return Err(PthError::Format("it has an array of another type than int or float")),
        })
    }

    /// Returns the bytes of a node. For old protocols, Python 3 writes them as Latin-1 text.
    fn bytes(&self, id: Id) -> Result<Vec<u8>> {
        let pickle = self.pickle;
        match pickle.node(id) {
            Node::Bytes(range) => Ok(pickle.slice(range).to_vec()),
            Node::Object(object) if pickle.global(object.class) == Some(("_codecs", "encode")) => {
                let text =
                    pickle.sequence(object.args).and_then(|args| pickle.text(*args.first()?));
                let latin1 =
                    text.into_iter().flat_map(str::chars).map(|c| u8::try_from(u32::from(c)));
                latin1.collect::<std::result::Result<_, _>>().map_err(|_| OTHER)
            }
            // Old protocols write empty bytes as a call of `bytes()`.
            Node::Object(_) => Ok(Vec::new()),
            _ => Err(OTHER),
        }
    }
}

const OTHER: PthError =
    PthError::Format("it has values that are not numbers, text, lists or dictionaries");

/// Decodes a little-endian two's complement integer.
fn long(bytes: &[u8]) -> Result<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if negative { 0xFF } else { 0 }; 8];
    match all.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Err(PthError::Format("it has an integer of more than 64 bits")),
    }
    Ok(i64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_values_by_hand() {
        // {"a": [1, -2, 300], "b": (None, True, 1.5), "c": "é"}, protocol 2.
        let mut bytes =
            b"\x80\x02}(X\x01\0\0\0a](K\x01J\xfe\xff\xff\xffM\x2c\x01eX\x01\0\0\0b".to_vec();
        bytes.extend(b"N\x88G\x3f\xf8\0\0\0\0\0\0\x87X\x01\0\0\0cX\x02\0\0\0\xc3\xa9u.");
        let expected = json!({"a": [1, -2, 300], "b": [null, true, 1.5], "c": "é"});
        assert_eq!(read_plain_pickle(&bytes).unwrap(), expected);
        for end in 0..bytes.len() {
            assert!(read_plain_pickle(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(
            (long(b"\xff\x7f").unwrap(), long(b"\x00\xff").unwrap(), long(b"").unwrap()),
            (32767, -256, 0)
        );
    }

    #[test]
    fn calls_are_not_made() {
        // os.system("ls")
        let bytes = b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.";
        assert!(matches!(read_plain_pickle(bytes), Err(PthError::Format(_))));
    }

    #[test]
    fn lists_of_lists_do_not_explode() {
        // Ten lists, each of which contains the previous one ten times: 10^10 values.
        let mut bytes = b"\x80\x02]".to_vec();
        for level in 0..10_u8 {
            bytes.extend([b'q', level, b'0', b']', b'(']);
            bytes.extend([b'h', level].repeat(10));
            bytes.push(b'e');
        }
        bytes.push(b'.');
        assert!(matches!(read_plain_pickle(&bytes), Err(PthError::Limit { .. })));
    }
}
