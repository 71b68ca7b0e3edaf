//! Keys without quotes: from RocketMQ's own form to JSON.
//! Invariant: valid JSON stays valid and means the same; nesting is bounded.
//! Leaves every other fault of a text to the JSON reader.

use std::borrow::Cow;

/// Deepest nesting of a body that is rewritten before it is read.
const DEPTH_MAX: usize = 64;

/// Turns keys that are numbers or objects into strings and leaves out members that are `null`; `None` when the text is too deep or ends
/// inside a value. What else is wrong with it is left to the JSON reader.
pub fn quote_keys(body: &[u8]) -> Option<Cow<'_, [u8]>> {
    let out = Vec::with_capacity(body.len() + 64);
    let mut rewriter = Rewriter { body, at: 0, out, in_key: false };
    rewriter.value(0)?;
    rewriter.out.extend_from_slice(&body[rewriter.at..]);
    Some(Cow::Owned(rewriter.out))
}

struct Rewriter<'b> {
    body: &'b [u8],
    at: usize,
    out: Vec<u8>,
    /// Whether an object is read that is a key.
    in_key: bool,
}

impl Rewriter<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            _ => self.bare(),
        }
    }

    /// An object without its members that are `null`: for RocketMQ these are the same as absent.
    fn object(&mut self, depth: usize) -> Option<()> {
        self.copy();
        self.space();
        let mut separator: &[u8] = b"";
        while self.peek()? != b'}' {
            let start = self.out.len();
            self.out.extend_from_slice(separator);
            self.key(depth)?;
            self.space();
            (self.peek()? == b':').then_some(())?;
            self.copy();
            let value = self.out.len();
            self.value(depth + 1)?;
            if self.out[value..] == *b"null" {
                self.out.truncate(start);
            } else {
                separator = b",";
            }
            self.end_of_item(b'}')?;
        }
        self.copy();
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.copy();
        self.space();
        let mut separator: &[u8] = b"";
        while self.peek()? != b']' {
            self.out.extend_from_slice(separator);
            self.value(depth + 1)?;
            separator = b",";
            self.end_of_item(b']')?;
        }
        self.copy();
        Some(())
    }

    /// Passes the comma after an item, or stops before the bracket.
    fn end_of_item(&mut self, close: u8) -> Option<()> {
        self.space();
        if self.peek()? == b',' {
            self.at += 1;
            self.space();
            return Some(());
        }
        (self.peek()? == close).then_some(())
    }

    fn key(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' => {
                // Each level of keys within keys would double the escapes; the protocol has one.
                (!self.in_key).then_some(())?;
                let start = self.out.len();
                self.in_key = true;
                self.object(depth + 1)?;
                self.in_key = false;
                let key = self.out.split_off(start);
                let text = String::from_utf8(key).ok()?;
                serde_json::to_writer(&mut self.out, &text).ok()
            }
            _ => {
                self.out.push(b'"');
                self.bare()?;
                self.out.push(b'"');
                Some(())
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.copy();
        while self.peek()? != b'"' {
            if self.peek()? == b'\\' {
                self.copy();
                self.peek()?;
            }
            self.copy();
        }
        self.copy();
        Some(())
    }

    /// A number or a word.
    fn bare(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') =
            self.body.get(self.at)
        {
            self.copy();
        }
        (self.at > start).then_some(())
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Copies one byte; callers have peeked at it.
    fn copy(&mut self) {
        self.out.push(self.body[self.at]);
        self.at += 1;
    }
}
