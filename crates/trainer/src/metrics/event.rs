//! Encodes TensorBoard events: the few fields of `tensorflow.Event` that scalars need, as protocol
//! buffers inside TFRecord frames.

use super::crc32c::masked;

/// Version in the first event of every file.
const FILE_VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;

// Wire types of a protocol buffer.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A protocol buffer message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn whole(mut self, field: u64, value: u64) -> Self {
        self.tag(field, VARINT);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.tag(field, FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.tag(field, FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.tag(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }
}

/// Starts an `Event { wall_time, step }`. A step of 0 is the encoding's default and is omitted.
fn event(wall_time: f64, step: u64) -> Message {
    let message = Message::default().double(1, wall_time);
    if step == 0 { message } else { message.whole(2, step) }
}

/// Returns the event that opens a file. `wall_time` is in seconds since 1970.
pub(super) fn file_version(wall_time: f64) -> Vec<u8> {
    frame(&event(wall_time, 0).bytes(3, FILE_VERSION.as_bytes()).0)
}

/// Returns the event that tells readers to discard what earlier files contain for `step` and
/// later.
pub(super) fn session_start(wall_time: f64, step: u64) -> Vec<u8> {
    let log = Message::default().whole(1, SESSION_START);
    frame(&event(wall_time, step).bytes(7, &log.0).0)
}

/// Returns one event with all scalars of a step.
pub(super) fn scalars(wall_time: f64, step: u64, values: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, value) in values {
        let value = Message::default().bytes(1, tag.as_bytes()).float(2, *value as f32);
        summary = summary.bytes(1, &value.0);
    }
    frame(&event(wall_time, step).bytes(5, &summary.0).0)
}

/// Wraps data in a TFRecord frame: length, its masked CRC, data, its masked CRC.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut framed = Vec::with_capacity(data.len() + 16);
    framed.extend(length);
    framed.extend(masked(&length).to_le_bytes());
    framed.extend(data);
    framed.extend(masked(data).to_le_bytes());
    framed
}

/// The parts of an event that tests check.
#[cfg(test)]
pub(super) struct Seen {
    pub step: u64,
    pub starts_session: bool,
    /// Names of the scalars.
    pub tags: Vec<String>,
}

/// Reads the events of a file.
#[cfg(test)]
pub(super) fn read(mut file: &[u8]) -> Vec<Seen> {
    let mut events = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk::<8>() {
        let (data, rest) = rest[4..].split_at(u64::from_le_bytes(*length) as usize);
        let mut seen = Seen { step: 0, starts_session: false, tags: Vec::new() };
        for (field, value, bytes) in fields(data) {
            match field {
                2 => seen.step = value,
                5 => seen.tags.extend(fields(bytes).into_iter().map(|(_, _, value)| tag_of(value))),
                7 => seen.starts_session = true,
                _ => {}
            }
        }
        events.push(seen);
        file = &rest[4..];
    }
    events
}

#[cfg(test)]
fn tag_of(value: &[u8]) -> String {
    let tag = fields(value).into_iter().find(|(field, ..)| *field == 1);
    tag.map(|(_, _, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// Returns the number of each field of a message, and its value as a number or as bytes.
#[cfg(test)]
fn fields(mut message: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let varint = |message: &mut &[u8]| {
        let length = 1 + message.iter().take_while(|&&byte| byte >= 0x80).count();
        let (own, rest) = message.split_at(length);
        *message = rest;
        own.iter().rev().fold(0, |value, &byte| value << 7 | u64::from(byte & 0x7F))
    };
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            VARINT => {
                all.push((tag >> 3, varint(&mut message), &[][..]));
                continue;
            }
            FIXED64 => 8,
            FIXED32 => 4,
            _ => varint(&mut message) as usize,
        };
        let (bytes, rest) = message.split_at(length);
        all.push((tag >> 3, 0, bytes));
        message = rest;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by TensorBoard's own writer, see tools/parity/tensorboard_events.py.
    const REFERENCE: &[u8] = include_bytes!("../../tests/fixtures/scalars.tfevents");

    #[test]
    fn bytes_equal_tensorboards_own() {
        let values = |loss, lr| vec![("loss/total".to_owned(), loss), ("optim/lr".to_owned(), lr)];
        let mut bytes = file_version(1000.5);
        bytes.extend(session_start(1001.0, 3));
        bytes.extend(scalars(1002.25, 3, &values(-0.75, 1e-3)));
        bytes.extend(scalars(1003.0, 300, &values(f64::NAN, 0.0)));
        assert_eq!(bytes, REFERENCE);
    }
}
