//! One request of any family: what it says, and how it is answered.
//! Invariant: each request is answered once, at once or later; one-way ones never.
//! Leaves decoding of fields and bodies to the families.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use gantry_remoting::{
    HeaderView, ReplyTo, ResponseCode,
    server::{Answers, Connection},
};
use gantry_store::{Now, Ticket};

use super::{Shared, refusal::Refusal};
use crate::services::Services;

/// A request that is being handled.
pub(crate) struct Call<'a, 'h> {
    /// What all requests share.
    pub(crate) shared: &'a Arc<Shared>,
    /// Where it came from.
    pub(crate) connection: &'a Arc<Connection>,
    /// Its header.
    pub(crate) view: &'a HeaderView<'h>,
    /// Its body; shares the read buffer's memory.
    pub(crate) body: &'a Bytes,
    /// Answers that leave with this hand-over.
    pub(crate) answers: &'a mut Answers,
    /// When the hand-over began.
    pub(crate) now: Now,
}

impl Call<'_, '_> {
    /// The services.
    pub(crate) fn services(&self) -> &Services {
        &self.shared.services
    }

    /// What an answer needs to know.
    pub(crate) fn reply(&self) -> ReplyTo {
        self.view.reply_to()
    }

    /// Answers with a code alone.
    pub(crate) fn success(&mut self) {
        self.answers.success(self.view.reply_to());
    }

    /// Answers with success and words for a person.
    pub(crate) fn success_with_remark(&mut self, remark: &str) {
        let reply = self.view.reply_to();
        self.answers.begin_with_remark(reply, ResponseCode::SUCCESS, remark).finish();
    }

    /// Answers with a body.
    pub(crate) fn success_with_body(&mut self, body: &[u8]) {
        self.answers.begin(self.view.reply_to(), ResponseCode::SUCCESS).body(body);
    }

    /// Answers with a refusal.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        write_refusal(self.answers, self.view.reply_to(), refusal);
    }

    /// Answers success, or the refusal.
    pub(crate) fn end(&mut self, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.success(),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Answers success when the ticket is confirmed, now or later, after `then` has run.
    pub(crate) fn confirmed(&mut self, ticket: Ticket, then: impl FnOnce() + Send + 'static) {
        let commits = &self.shared.services.commits;
        if commits.is_confirmed(ticket) {
            then();
            return self.success();
        }
        let commits = Arc::clone(commits);
        self.end_later(async move {
            commits.confirmed(ticket).await?;
            then();
            Ok(())
        });
    }

    /// Answers with a body when the ticket is confirmed, now or later.
    pub(crate) fn confirmed_with_body(&mut self, ticket: Ticket, body: Bytes) {
        let commits = Arc::clone(&self.shared.services.commits);
        if commits.is_confirmed(ticket) {
            return self.success_with_body(&body);
        }
        let (connection, reply) = (Arc::clone(self.connection), self.reply());
        self.shared.runtime.spawn(async move {
            let mut answers = Answers::new();
            match commits.confirmed(ticket).await {
                Ok(()) => answers.begin(reply, ResponseCode::SUCCESS).body(&body),
                Err(error) => write_refusal(&mut answers, reply, &error.into()),
            }
            send(&connection, answers);
        });
    }

    /// Runs `work` on a task of its own and answers success or its refusal when it ends.
    pub(crate) fn end_later(
        &self,
        work: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) {
        let (connection, reply) = (Arc::clone(self.connection), self.reply());
        self.shared.runtime.spawn(async move {
            let mut answers = Answers::new();
            match work.await {
                Ok(()) => answers.success(reply),
                Err(refusal) => write_refusal(&mut answers, reply, &refusal),
            }
            send(&connection, answers);
        });
    }
}

/// Writes a refusal.
pub(crate) fn write_refusal(answers: &mut Answers, reply: ReplyTo, refusal: &Refusal) {
    let mut writer = answers.begin_with_remark(reply, refusal.code, &refusal.remark);
    if let Some(kind) = refusal.forbidden {
        writer = writer.ext_number("forbiddenType", kind);
    }
    writer.finish();
}

/// Sends answers that were not ready in time; a connection that is gone wants none.
pub(crate) fn send(connection: &Connection, answers: Answers) {
    if answers.bytes() == 0 {
        return;
    }
    if let Err(error) = connection.send(answers) {
        tracing::debug!(%error, "late answer was not sent");
    }
}
