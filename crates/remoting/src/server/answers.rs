//! Answers of one hand-over, encoded one after another into one buffer.
//!
//! A one-way request is never answered: its writer writes nothing, whatever the service does.
//! An answer that is dropped half-way, fails, or is too large leaves no bytes behind.

use std::{sync::Once, time::Duration};

use bytes::BytesMut;

use crate::codes::ResponseCode;
use crate::envelope::Command;
use crate::ext::{ExtSink, Header};
use crate::frame::FrameError;
use crate::header::ReplyTo;
use crate::writer::FrameWriter;

/// Encoded answers that leave with one write.
#[derive(Debug)]
pub struct Answers {
    pub(super) out: BytesMut,
    /// Bytes at which they are enough for one hand-over.
    pub(super) enough_bytes: usize,
    /// How long the requests had waited in the system.
    pub(super) waited: Duration,
}

impl Default for Answers {
    fn default() -> Self {
        Self { out: BytesMut::new(), enough_bytes: usize::MAX, waited: Duration::ZERO }
    }
}

impl Answers {
    /// No answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// No answers, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Encoded bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Whether they are as many as one hand-over should bring: the service leaves the other requests for the next.
    pub fn are_enough(&self) -> bool {
        self.out.len() >= self.enough_bytes
    }

    /// How long the requests of this hand-over had waited in the system before they were read, at least.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Begins the answer to `reply`; see [`AnswerWriter`].
    pub fn begin(&mut self, reply: ReplyTo, code: ResponseCode) -> AnswerWriter<'_> {
        AnswerWriter::begin(&mut self.out, reply, code, None)
    }

    /// Begins an answer with a remark.
    pub fn begin_with_remark<'w>(
        &'w mut self,
        reply: ReplyTo,
        code: ResponseCode,
        remark: &'w str,
    ) -> AnswerWriter<'w> {
        AnswerWriter::begin(&mut self.out, reply, code, Some(remark))
    }

    /// Writes an answer that is a code and a remark.
    pub fn refuse(&mut self, reply: ReplyTo, code: ResponseCode, remark: &str) {
        self.begin_with_remark(reply, code, remark).finish();
    }

    /// Writes an answer that is a code alone.
    pub fn success(&mut self, reply: ReplyTo) {
        self.begin(reply, ResponseCode::SUCCESS).finish();
    }

    /// Writes an answer made elsewhere, such as one relayed from another connection.
    pub fn relay(&mut self, reply: ReplyTo, answer: &Command) {
        let code = ResponseCode(answer.code);
        let mut writer = AnswerWriter::begin(&mut self.out, reply, code, answer.remark.as_deref());
        for (key, value) in answer.ext.iter() {
            writer = writer.ext(key, value);
        }
        writer.body(&answer.body);
    }
}

/// One answer under construction: fields first, then one of the endings.
#[derive(Debug)]
#[must_use = "an answer that is not ended is not sent"]
pub struct AnswerWriter<'w>(State<'w>);

#[derive(Debug)]
enum State<'w> {
    /// The request is one-way.
    Muted,
    Open {
        frame: FrameWriter<'w>,
    },
}

impl<'w> AnswerWriter<'w> {
    pub(super) fn begin(
        out: &'w mut BytesMut,
        reply: ReplyTo,
        code: ResponseCode,
        remark: Option<&'w str>,
    ) -> Self {
        if reply.one_way {
            return Self(State::Muted);
        }
        Self(State::Open { frame: FrameWriter::answer(out, reply, code, remark) })
    }

    /// Adds a field.
    pub fn ext(mut self, key: &str, value: &str) -> Self {
        if let State::Open { frame } = &mut self.0 {
            frame.field(key, value);
        }
        self
    }

    /// Adds a number.
    pub fn ext_number(mut self, key: &'static str, value: impl itoa::Integer) -> Self {
        if let State::Open { frame } = &mut self.0 {
            frame.put_number(key, value);
        }
        self
    }

    /// Adds every field of a typed header.
    pub fn header<'h>(mut self, header: &impl Header<'h>) -> Self {
        if let State::Open { frame } = &mut self.0 {
            frame.open_ext();
            frame.header(header);
        }
        self
    }

    /// Ends the answer without a body.
    pub fn finish(self) {
        self.body(&[]);
    }

    /// Ends the answer with a body.
    pub fn body(self, body: &[u8]) {
        self.body_from(|out| out.extend_from_slice(body));
    }

    /// Ends the answer with the bytes that `body` appends.
    ///
    /// An answer above the frame limit is replaced by a system error that says so.
    pub fn body_from<R>(self, body: impl FnOnce(&mut BytesMut) -> R) -> R {
        let State::Open { frame } = self.0 else { return body(&mut BytesMut::new()) };
        let mut result = None;
        let ended = frame.finish_or_refuse(|out| result = Some(body(out)));
        if let Err(error) = ended {
            tell_once(&error);
        }
        result.expect("the frame writer calls its body once")
    }

    /// Ends the answer with the bytes that `body` appends; on its error nothing is written, so that
    /// another answer can be begun.
    pub fn try_body_from<R, E: From<FrameError>>(
        self,
        body: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<R, E> {
        match self.0 {
            State::Muted => body(&mut BytesMut::new()),
            State::Open { frame } => frame.finish_with(body),
        }
    }
}

/// What is too large was asked for by a client and is refused, which tells it; the log hears of the first alone.
fn tell_once(error: &FrameError) {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        tracing::warn!(%error, "an answer is too large and was refused; further ones are not told");
    });
}
