//! The remoting front door: requests of one read in, answers out.
//! Invariant: consecutive sends of one read are one append and one write; other requests keep their place among
//! them. A request is answered by its own family's file.
//! Leaves everything that a request means to the services.

mod admin;
mod call;
mod client;
mod cold;
mod late;
mod locks;
mod offsets;
mod pull;
mod refusal;
mod retry;
mod send;
pub(crate) mod versions;

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::BytesMut;
use gantry_remoting::{
    HeaderView, RequestCode,
    server::{Answers, Connection, Counters, Request, Service},
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub(crate) use call::Call;
pub(crate) use refusal::Refusal;

use crate::services::{Services, hold::Owner, send::Outgoing};
use cold::{ColdThreads, DiskThreads};
use late::Lateness;
use send::SendRun;

/// Counters of the connections.
pub(crate) type RemotingCounters = Counters;

/// Encoded messages at which a run of sends is appended, so that one append stays far below a segment and a
/// long one delays nobody for more than a few milliseconds.
const RUN_BYTES_MAX: usize = 4 << 20;
/// Buffers kept for reuse: more than there are threads at work.
const POOLED_MAX: usize = 16;
/// Largest buffer kept.
const POOLED_BYTES_MAX: usize = 1 << 20;

/// What all requests share.
pub(crate) struct Shared {
    /// The services.
    pub(crate) services: Arc<Services>,
    /// Where work goes on that does not end at once.
    pub(crate) runtime: Handle,
    /// Threads of reads far behind.
    pub(crate) cold: ColdThreads,
    /// Threads of look-ups.
    pub(crate) look_ups: DiskThreads,
    /// Sends that had waited for too long, counted to refuse some of them.
    late_sends: AtomicUsize,
    outgoing: Mutex<Vec<Outgoing>>,
    buffers: Mutex<Vec<BytesMut>>,
}

impl Shared {
    fn take_outgoing(&self) -> Outgoing {
        self.outgoing.lock().pop().unwrap_or_default()
    }

    fn give_outgoing(&self, mut outgoing: Outgoing) {
        let kept = outgoing.outbox().bytes() <= POOLED_BYTES_MAX;
        outgoing.clear();
        let mut pool = self.outgoing.lock();
        if kept && pool.len() < POOLED_MAX {
            pool.push(outgoing);
        }
    }

    /// Lends an empty buffer.
    pub(crate) fn with_buffer<R>(&self, work: impl FnOnce(&mut BytesMut) -> R) -> R {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let result = work(&mut buffer);
        buffer.clear();
        if buffer.capacity() <= POOLED_BYTES_MAX {
            let mut pool = self.buffers.lock();
            if pool.len() < POOLED_MAX {
                pool.push(buffer);
            }
        }
        result
    }
}

/// The remoting front door of a broker.
pub(crate) struct Front {
    shared: Arc<Shared>,
}

impl Front {
    /// A front door to `services`; what does not end at once runs on `runtime`.
    pub(crate) fn new(services: Arc<Services>, runtime: Handle) -> io::Result<Self> {
        let cold = ColdThreads::start(services.settings.cold_reads_max)?;
        let shared = Shared {
            services,
            runtime,
            cold,
            look_ups: DiskThreads::for_look_ups()?,
            late_sends: AtomicUsize::new(0),
            outgoing: Mutex::default(),
            buffers: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Service for Front {
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    ) {
        let now = self.shared.services.clock.now();
        let late = Lateness::new(answers.waited(), requests.len(), &self.shared.late_sends);
        let mut run = SendRun::new(&self.shared, connection, now, late, requests.len());
        let mut view = HeaderView::default();
        let mut taken = 0;
        for request in requests.iter() {
            taken += 1;
            if let Err(error) = request.view_in(&mut view) {
                connection.reject(&error);
                continue;
            }
            let mut call = Call {
                shared: &self.shared,
                connection,
                view: &view,
                body: &request.body,
                answers,
                now,
            };
            if send::is_send(view.request_code()) {
                run.take(&mut call);
            } else {
                // A client that sends and then asks sees its own message.
                run.append(call.answers);
                dispatch(&mut call);
            }
            if run.bytes() >= RUN_BYTES_MAX || answers.are_enough() {
                break;
            }
        }
        run.append(answers);
        run.end();
        requests.drain(..taken);
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let owner = Owner(connection.id());
        self.shared.services.holds.forget(owner);
        self.shared.services.members.closed(owner);
    }
}

fn dispatch(call: &mut Call<'_, '_>) {
    match call.view.request_code() {
        RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => pull::pull(call),
        RequestCode::HEART_BEAT => client::heartbeat(call),
        RequestCode::UNREGISTER_CLIENT => client::unregister(call),
        RequestCode::GET_CONSUMER_LIST_BY_GROUP => client::consumer_list(call),
        RequestCode::CHECK_CLIENT_CONFIG => client::check_config(call),
        RequestCode::QUERY_CONSUMER_OFFSET => offsets::query(call),
        RequestCode::UPDATE_CONSUMER_OFFSET => offsets::update(call),
        RequestCode::GET_MAX_OFFSET => offsets::max(call),
        RequestCode::GET_MIN_OFFSET => offsets::min(call),
        RequestCode::GET_EARLIEST_MSG_STORETIME => offsets::earliest_time(call),
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offsets::at_time(call),
        RequestCode::LOCK_BATCH_MQ => locks::lock(call),
        RequestCode::UNLOCK_BATCH_MQ => locks::unlock(call),
        RequestCode::CONSUMER_SEND_MSG_BACK => retry::send_back(call),
        _ => admin::handle(call),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use gantry_remoting::{
        Command,
        client::{Channel, ChannelSettings, RefuseRequests},
        server::{Server, ServerLimits},
    };
    use tokio::{net::TcpListener, sync::watch};

    use super::*;
    use crate::services::{behind::Onset, fixture::services_with};

    #[tokio::test(flavor = "multi_thread")]
    async fn look_up_is_answered_while_all_threads_of_cold_reads_are_busy() {
        let dir = tempfile::tempdir().unwrap();
        let services = Arc::new(services_with(dir.path(), |_| {}));
        let front = Arc::new(Front::new(Arc::clone(&services), Handle::current()).unwrap());
        let busy: Vec<_> = (0..services.settings.cold_reads_max)
            .map(|_| {
                let (done, is_done) = mpsc::channel::<()>();
                front.shared.cold.of(Onset::GoesOn).run(move || assert!(is_done.recv().is_err()));
                done
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = watch::channel(false);
        let server = Server::new(front, ServerLimits::default());
        let serving = tokio::spawn(server.serve(listener, stopped));
        let settings = ChannelSettings::default();
        let channel =
            Channel::connect(&address, &settings, Arc::new(RefuseRequests)).await.unwrap();
        let look = Command::request(RequestCode::VIEW_MESSAGE_BY_ID).with_ext("offset", "0");
        let answer = channel.call(&look, Duration::from_secs(20)).await.unwrap();
        let remark = answer.remark.unwrap();
        assert!(remark.contains("can not find message by the offset"), "{remark}");
        drop((busy, channel));
        stop.send_replace(true);
        serving.await.unwrap();
    }
}
