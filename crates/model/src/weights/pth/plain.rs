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
            Node::Long(_) => {
                return Err(PthError::Format("it has an integer of more than 64 bits"));
            }
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
                let &[length] = shape else {
                    return Err(PthError::Format("it has an array that is not one-dimensional"));
                };
                let length = pickle.int(length).and_then(|length| usize::try_from(length).ok());
                let length = length.ok_or(OTHER)?;
                Ok(Value::Array(self.numbers(dtype, data, length)?))
            }
            ("scalar", _, Some(&[dtype, data])) => self.numbers(dtype, data, 1)?.pop().ok_or(OTHER),
            _ => Err(OTHER),
        }
    }

    /// Decodes bytes as `count` numbers of a dtype.
    fn numbers(&mut self, dtype: Id, data: Id, count: usize) -> Result<Vec<Value>> {
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
        let width = match kind {
            "i8" | "f8" => 8,
            "i4" | "u4" | "f4" => 4,
            _ => return Err(PthError::Format("it has an array of another type than int or float")),
        };
        if count.checked_mul(width) != Some(data.len()) {
            return Err(PthError::Format("it has an array whose data is not of its size"));
        }
        Ok(match kind {
            "i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b).into()).collect(),
            "i4" => data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            "u4" => data.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b).into()).collect(),
            "f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b).into()).collect(),
            _ => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        })
    }

    /// Returns the bytes of a node. For old protocols, Python 3 writes them as Latin-1 text, and empty
    /// ones as a call of `bytes()`.
    fn bytes(&self, id: Id) -> Result<Vec<u8>> {
        let pickle = self.pickle;
        match pickle.node(id) {
            Node::Bytes(range) => Ok(pickle.slice(range).to_vec()),
            Node::Object(object) => {
                match (pickle.global(object.class), pickle.sequence(object.args)) {
                    (Some(("_codecs", "encode")), Some(&[text, _])) => {
                        let text = pickle.text(text).ok_or(OTHER)?;
                        let latin1 = text.chars().map(|c| u8::try_from(u32::from(c)));
                        latin1.collect::<std::result::Result<_, _>>().map_err(|_| OTHER)
                    }
                    (Some(("__builtin__" | "builtins", "bytes")), Some([])) => Ok(Vec::new()),
                    _ => Err(OTHER),
                }
            }
            _ => Err(OTHER),
        }
    }
}

const OTHER: PthError =
    PthError::Format("it has values that are not numbers, text, lists or dictionaries");

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
        // Integers that follow their number of bytes.
        let long = |bytes: &[u8]| {
            let head = [0x80, 2, 0x8a, bytes.len() as u8];
            read_plain_pickle(&[&head, bytes, b"."].concat()).ok()
        };
        assert_eq!(long(b"\xff\x7f"), Some(json!(32767)));
        assert_eq!(long(b"\x00\xff"), Some(json!(-256)));
        assert_eq!((long(b""), long(&[1; 9])), (Some(json!(0)), None));
    }

    /// Returns the pickle of an array of `length` 32-bit integers with this data.
    fn array(length: u8, data: &[u8]) -> Vec<u8> {
        let dtype = b"cnumpy\ndtype\nX\x02\0\0\0i4\x85R";
        let parts = [
            &b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K"[..],
            &[length, 0x85],
            dtype,
            b"\x89",
            data,
            b"tb.",
        ];
        parts.concat()
    }

    #[test]
    fn an_array_has_the_data_of_its_shape() {
        let read = |length, data: &[u8]| read_plain_pickle(&array(length, data));
        let two = b"C\x08\x01\0\0\0\xff\xff\xff\xff";
        assert_eq!(read(2, two).unwrap(), json!([1, -1]));
        assert_eq!(read(0, b"c__builtin__\nbytes\n)R").unwrap(), json!([]));
        let seven = b"C\x07\x01\0\0\0\xff\xff\xff";
        for (length, data) in [(1, &two[..]), (3, two), (2, seven), (1, seven)] {
            let error = read(length, data).unwrap_err().to_string();
            assert!(error.contains("an array whose data is not of its size"), "{error}");
        }
        // What is not bytes is no empty array.
        assert!(read(0, b"c__builtin__\nbytearray\n)R").is_err());
        assert!(read(0, b"c_codecs\nencode\n)R").is_err());
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
