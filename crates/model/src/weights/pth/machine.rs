//! The virtual machine for pickles, which records every call instead of executing it.

use std::collections::HashMap;

use super::error::{PthError, Result};
use super::input::Input;
use super::values::{Id, Node, Object, Pickle};

/// First byte of every pickle of protocol 2 or later.
pub(super) const PROTO: u8 = 0x80;

/// Runs the pickle at the start of `bytes`, in an arena of at most `budget` bytes.
pub(super) fn run(bytes: &[u8], budget: usize) -> Result<Pickle<'_>> {
    let mut machine = Machine::new(bytes, budget);
    let root = loop {
        if let Some(root) = machine.step()? {
            break root;
        }
    };
    let (len, nodes) = (machine.input.at, machine.nodes);
    Ok(Pickle { bytes, nodes, root, len })
}

// Ids of the values that are created once and then shared, because they have no state.
const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const EMPTY_TUPLE: Id = 3;

struct Machine<'a> {
    input: Input<'a>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Height of the stack at each mark.
    marks: Vec<u32>,
    memo: HashMap<u32, Id>,
    budget: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], budget: usize) -> Self {
        let nodes =
            vec![Node::None, Node::Bool(true), Node::Bool(false), Node::Tuple(Box::default())];
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        let input = Input { bytes, at: 0 };
        Self { input, nodes, stack, marks, memo, budget }
    }

    /// Executes one instruction; returns the value of the pickle after the last one.
    fn step(&mut self) -> Result<Option<Id>> {
        let opcode = self.input.byte()?;
        match opcode {
            PROTO => self.input.skip(1)?,
            0x95 => self.input.skip(8)?, // a frame's length: a hint for readers
            b'.' => return self.pop().map(Some),
            b'(' => self.mark()?,
            b'0' => self.discard()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            b'N' => self.push_id(NONE)?,
            0x88 => self.push_id(TRUE)?,
            0x89 => self.push_id(FALSE)?,
            b')' => self.push_id(EMPTY_TUPLE)?,
            _ => self.literal(opcode)?,
        }
        Ok(None)
    }

    /// Executes an instruction that pushes a number, text, or a name.
    fn literal(&mut self, opcode: u8) -> Result<()> {
        let node = match opcode {
            b'J' => Node::Int(i64::from(i32::from_le_bytes(self.input.array()?))),
            b'K' => Node::Int(i64::from(self.input.byte()?)),
            b'M' => Node::Int(i64::from(u16::from_le_bytes(self.input.array()?))),
            b'I' => self.input.decimal_line()?,
            b'G' => Node::Float(f64::from_be_bytes(self.input.array()?)),
            0x8a => self.input.long(1)?,
            0x8b => self.input.long(4)?,
            b'X' => Node::Text(self.input.counted(4)?),
            0x8c => Node::Text(self.input.counted(1)?),
            0x8d => Node::Text(self.input.counted(8)?),
            b'U' => Node::Bytes(self.input.counted(1)?),
            b'T' | b'B' => Node::Bytes(self.input.counted(4)?),
            b'C' => Node::Bytes(self.input.counted(1)?),
            0x8e | 0x96 => Node::Bytes(self.input.counted(8)?),
            b'c' => Node::Global(self.input.line()?, self.input.line()?),
            0x93 => self.stack_global()?,
            _ => return self.container(opcode),
        };
        self.push(node)
    }

    /// Executes an instruction that creates or fills a tuple, list, or dictionary.
    fn container(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b']' | 0x8f => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' => {
                let parts = self.pop_mark()?;
                self.push_tuple(parts)
            }
            0x85..=0x87 => {
                let parts = self.pop_many(usize::from(opcode - 0x84))?;
                self.push_tuple(parts)
            }
            b'l' | 0x91 => {
                let parts = self.pop_mark()?;
                self.push(Node::List(parts))
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(items))
            }
            b'a' => {
                let value = self.pop_many(1)?;
                self.extend(&value, false)
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.extend(&values, false)
            }
            b's' => {
                let item = self.pop_many(2)?;
                self.extend(&item, true)
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend(&items, true)
            }
            _ => self.remember(opcode),
        }
    }

    /// Executes an instruction that writes or reads the memo.
    fn remember(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'q' => {
                let key = u32::from(self.input.byte()?);
                self.put(key)
            }
            b'r' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.put(key)
            }
            0x94 => self.put(self.memo.len() as u32),
            b'h' => {
                let key = u32::from(self.input.byte()?);
                self.get(key)
            }
            b'j' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.get(key)
            }
            _ => self.call(opcode),
        }
    }

    /// Executes an instruction that calls something: the call is only recorded.
    fn call(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'R' | 0x81 => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.push_object(class, args)
            }
            0x92 => {
                let (_named, args) = (self.pop()?, self.pop()?);
                let class = self.pop()?;
                self.push_object(class, args)
            }
            b'o' => {
                let mut parts = self.pop_mark()?;
                if parts.is_empty() {
                    return Err(self.broken("an object without a class"));
                }
                let class = parts.remove(0);
                self.push_tuple(parts)?;
                let args = self.pop()?;
                self.push_object(class, args)
            }
            b'b' => self.build(),
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            _ => Err(PthError::Opcode(opcode, self.input.at - 1)),
        }
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let top = self.top()? as usize;
        if let Some(Node::Object(object)) = self.nodes.get_mut(top) {
            object.state = Some(state);
        } // the state of anything else is never read
        Ok(())
    }

    /// Adds to the list, dictionary or object on top of the stack.
    fn extend(&mut self, values: &[Id], pairs: bool) -> Result<()> {
        if pairs && !values.len().is_multiple_of(2) {
            return Err(self.broken("a key without a value"));
        }
        let top = self.top()? as usize;
        self.charge(8 * values.len())?;
        match self.nodes.get_mut(top) {
            Some(Node::List(list)) if !pairs => list.extend_from_slice(values),
            Some(Node::Dict(items)) if pairs => items.extend_from_slice(values),
            Some(Node::Object(object)) if pairs => object.items.extend_from_slice(values),
            Some(Node::Object(_)) => (), // what is appended to an opaque object is never read
            _ => return Err(self.broken("an item added to something that is not a container")),
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Result<Node> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |id: Id| match self.nodes.get(id as usize) {
            Some(Node::Text(range) | Node::Bytes(range)) => Some(range.clone()),
            _ => None,
        };
        match (text(module), text(name)) {
            (Some(module), Some(name)) => Ok(Node::Global(module, name)),
            _ => Err(self.broken("a class whose name is not text")),
        }
    }

    fn push_tuple(&mut self, parts: Vec<Id>) -> Result<()> {
        if parts.is_empty() {
            return self.push_id(EMPTY_TUPLE);
        }
        self.push(Node::Tuple(parts.into_boxed_slice()))
    }

    fn push_object(&mut self, class: Id, args: Id) -> Result<()> {
        self.charge(size_of::<Object>())?;
        let object = Object { class, args, state: None, items: Vec::new() };
        self.push(Node::Object(Box::new(object)))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        self.charge(2 * size_of::<Node>())?; // twice, since vectors grow by doubling
        let id = Id::try_from(self.nodes.len()).map_err(|_| PthError::Unfolds)?;
        self.nodes.push(node);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() == self.stack.capacity() {
            self.charge(2 * size_of::<Id>() * self.stack.len().max(4))?;
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() == self.marks.capacity() {
            self.charge(8 * self.marks.len().max(4))?;
        }
        self.marks.push(self.stack.len() as u32);
        Ok(())
    }

    fn put(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        if self.memo.len() == self.memo.capacity() {
            self.charge(4 * size_of::<(u32, Id)>() * self.memo.len().max(4))?;
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Result<()> {
        match self.memo.get(&key) {
            Some(&id) => self.push_id(id),
            None => Err(self.broken("a reference to an unknown object")),
        }
    }

    /// Returns the height of the stack at the last mark, below which nothing can be popped.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |&height| height as usize)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(self.broken("an empty stack")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        if self.stack.len() < self.floor() + count {
            return Err(self.broken("an empty stack"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    /// Removes the last mark, and returns everything above it.
    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let Some(height) = self.marks.pop() else { return Err(self.broken("no mark")) };
        self.charge(size_of::<Id>() * (self.stack.len() - height as usize))?;
        Ok(self.stack.split_off(height as usize))
    }

    /// Removes a value, or the mark if nothing is above it.
    fn discard(&mut self) -> Result<()> {
        if self.stack.len() == self.floor() && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(PthError::Unfolds)?;
        Ok(())
    }

    fn broken(&self, what: &'static str) -> PthError {
        self.input.broken(what)
    }
}
