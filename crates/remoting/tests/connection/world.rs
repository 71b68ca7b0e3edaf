//! A server whose service answers in every way there is, and what connects to it.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use gantry_remoting::{
    Command, Frame, RequestCode, ResponseCode,
    client::{Channel, ChannelHandler, ChannelSettings, RefuseRequests},
    server::{Answers, Connection, Counters, Request, Server, ServerLimits, Service},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

pub(super) const ECHO: RequestCode = RequestCode(1);
/// Answered from another task.
pub(super) const LATER: RequestCode = RequestCode(2);
/// Not answered.
pub(super) const PARK: RequestCode = RequestCode(3);
/// Answered with what the client answers to a call of the server.
pub(super) const CALL_BACK: RequestCode = RequestCode(4);
/// Answered with a body of 1 MiB.
pub(super) const LARGE: RequestCode = RequestCode(5);
/// Leaves all further requests of the batch for the next hand-over.
pub(super) const ONE_AT_A_TIME: RequestCode = RequestCode(6);
pub(super) const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Echo {
    pub(super) handed_over: AtomicUsize,
    pub(super) closed: AtomicUsize,
    pub(super) closed_signal: Notify,
}

impl Echo {
    pub(super) async fn wait_closed(&self, count: usize) {
        loop {
            let signal = self.closed_signal.notified();
            if self.closed.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::timeout(LONG, signal).await.expect("connection is closed");
        }
    }
}

impl Service for Echo {
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    ) {
        self.handed_over.fetch_add(1, Ordering::SeqCst);
        while !requests.is_empty() {
            let request = requests.remove(0);
            let view = match request.view() {
                Ok(view) => view,
                Err(error) => return connection.reject(&error),
            };
            let reply = view.reply_to();
            let connection = Arc::clone(connection);
            match view.request_code() {
                ECHO => answers
                    .begin(reply, ResponseCode::SUCCESS)
                    .ext("k", view.ext.get("k").unwrap_or_default())
                    .body(&request.body),
                LATER => {
                    tokio::spawn(async move {
                        tokio::task::yield_now().await;
                        let code = ResponseCode::PULL_NOT_FOUND;
                        let _ = connection.answer(reply, code, Some("late"), |a| a.body(b""));
                    });
                }
                PARK => {}
                CALL_BACK => {
                    tokio::spawn(async move {
                        let call = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO);
                        let (code, body) = match connection.call(&call, LONG).await {
                            Ok(answer) => (answer.response_code(), answer.body),
                            Err(error) => (ResponseCode::SYSTEM_ERROR, error.to_string().into()),
                        };
                        let _ = connection.answer(reply, code, None, |a| a.body(&body));
                    });
                }
                LARGE => {
                    answers.begin(reply, ResponseCode::SUCCESS).body(&vec![7; 1 << 20]);
                }
                ONE_AT_A_TIME => {
                    answers.success(reply);
                    return;
                }
                code => {
                    let remark = format!(" request type {} not supported", code.0);
                    answers.refuse(reply, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, &remark);
                }
            }
        }
    }

    fn closed(&self, _connection: &Arc<Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.closed_signal.notify_waiters();
    }
}

pub(super) struct World {
    pub(super) service: Arc<Echo>,
    pub(super) server: Server<Echo>,
    pub(super) counters: Arc<Counters>,
    pub(super) address: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
}

impl World {
    pub(super) async fn new(limits: ServerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Echo::default());
        let server = Server::new(Arc::clone(&service), limits);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(server.clone().serve(listener, stopped));
        Self { service, counters: server.counters(), server, address, stop, task }
    }

    pub(super) async fn channel(&self) -> Channel {
        self.channel_with(Arc::new(RefuseRequests)).await
    }

    pub(super) async fn channel_with(&self, handler: Arc<dyn ChannelHandler>) -> Channel {
        let settings = ChannelSettings::default();
        Channel::connect(&self.address.to_string(), &settings, handler).await.unwrap()
    }

    pub(super) async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LONG, self.task).await.expect("server stops").unwrap();
    }
}

pub(super) fn encoded(command: &Command) -> BytesMut {
    let mut wire = BytesMut::new();
    command.encode(&mut wire).unwrap();
    wire
}

/// Reads until the server closes; a reset is an end as well.
pub(super) async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match tokio::time::timeout(LONG, socket.read_to_end(&mut bytes)).await.expect("end") {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn read_answer(socket: &mut TcpStream, buffer: &mut BytesMut) -> Command {
    loop {
        if let Some(frame) = Frame::decode(buffer).unwrap() {
            return Command::from_frame(frame).unwrap();
        }
        assert_ne!(socket.read_buf(buffer).await.unwrap(), 0, "server closed");
    }
}
