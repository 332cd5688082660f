//! The parts of postcard that both pages describe, read and written by hand.

/// Bytes from front to back. Whatever is not there panics.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn raw(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.raw(1)[0]
    }

    pub(super) fn truth(&mut self) -> bool {
        match self.byte() {
            0 => false,
            1 => true,
            other => panic!("{other} is no truth value"),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.raw(N).try_into().unwrap()
    }

    pub(super) fn number(&mut self) -> u64 {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a varint of more than ten bytes");
    }

    pub(super) fn length(&mut self) -> usize {
        usize::try_from(self.number()).unwrap()
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let count = self.length();
        self.raw(count).to_vec()
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.length();
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn optional<T>(&mut self, item: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.truth().then(|| item(self))
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) {
        assert!(self.0.is_empty(), "{} bytes behind the last field", self.0.len());
    }
}

/// Fields, one behind the other.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn number(mut self, value: impl Into<u64>) -> Self {
        let mut value = value.into();
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
        self
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.number(u64::try_from(bytes.len()).unwrap()).raw(bytes)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn list<T>(self, items: &[T], item: impl FnMut(Self, &T) -> Self) -> Self {
        items.iter().fold(self.number(u64::try_from(items.len()).unwrap()), item)
    }

    pub(super) fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.number(0_u8),
            Some(text) => self.number(1_u8).text(text),
        }
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}
