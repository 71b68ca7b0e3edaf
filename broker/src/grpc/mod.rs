//! The gRPC front door: RocketMQ's gRPC protocol, version 2, on the services that remoting uses too.
//! Invariant: what an application did wrong is answered in band, as a status in the response; gRPC errors mean
//! that a call is not served at all.
//! Serves `QueryRoute`, `Heartbeat` and `SendMessage`; every other call answers `UNIMPLEMENTED`.

mod admission;
mod caller;
mod fifo;
mod heartbeat;
mod listener;
mod message;
mod route;
mod send;
mod status;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use gantry_proto::v2::{
    self,
    messaging_service_server::{MessagingService, MessagingServiceServer},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Request, Response, Status, Streaming};

use self::{admission::Admission, caller::Caller, send::SendDoor};
use crate::services::Services;

/// Largest gRPC message taken, in bytes: the largest body with room for its properties, as a remoting frame.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Calls of one connection that are worked on at a time; further ones wait in the connection.
const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// Dead peers are noticed after this long without an answer to a ping.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Serves gRPC on `listener` until `stopped` turns true; requests may hold `bytes_max` bytes together.
pub(crate) async fn serve(
    listener: TcpListener,
    services: Arc<Services>,
    bytes_max: usize,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let port = listener.local_addr().map_or(services.settings.grpc_port, |address| address.port());
    let incoming = listener::incoming(listener, services.settings.connections_max as usize);
    let door = Door { sends: SendDoor::new(Arc::clone(&services)), services, port };
    let service = MessagingServiceServer::new(door).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let stop = async move {
        // An error says that the broker itself is gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .layer(Admission::new(bytes_max))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

struct Door {
    services: Arc<Services>,
    sends: SendDoor,
    /// Port of this listener, for routes of clients that do not say how they came.
    port: u16,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_served<T>(call: &'static str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{call} is not served by this version")))
}

/// Calls that this version does not serve.
macro_rules! not_served {
    ($($method:ident($request:ty) -> $answer:ty;)*) => {
        $(
            // What `async_trait` makes of an `async fn`; it does not look into macros.
            fn $method<'life, 'call>(
                &'life self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'call>>
            where
                'life: 'call,
                Self: 'call,
            {
                Box::pin(std::future::ready(not_served(stringify!($method))))
            }
        )*
    };
}

#[tonic::async_trait]
impl MessagingService for Door {
    type ReceiveMessageStream = Answers<v2::ReceiveMessageResponse>;
    type PullMessageStream = Answers<v2::PullMessageResponse>;
    type TelemetryStream = Answers<v2::TelemetryCommand>;

    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Answer<v2::QueryRouteResponse> {
        let response = match Caller::of(&request) {
            Err(refusal) => route::refused(refusal),
            Ok(_) => route::query(&self.services, self.port, request.get_ref()),
        };
        Ok(Response::new(response))
    }

    async fn heartbeat(
        &self,
        request: Request<v2::HeartbeatRequest>,
    ) -> Answer<v2::HeartbeatResponse> {
        let checked = Caller::of(&request).and_then(|_| heartbeat::check(request.get_ref()));
        let status = checked.map_or_else(Into::into, |()| status::ok());
        Ok(Response::new(v2::HeartbeatResponse { status: Some(status) }))
    }

    async fn send_message(
        &self,
        request: Request<v2::SendMessageRequest>,
    ) -> Answer<v2::SendMessageResponse> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let response = match caller {
            Err(refusal) => send::refused(&request, refusal),
            Ok(caller) => self.sends.send(&caller, &request).await,
        };
        Ok(Response::new(response))
    }

    async fn receive_message(
        &self,
        _: Request<v2::ReceiveMessageRequest>,
    ) -> Answer<Self::ReceiveMessageStream> {
        not_served("ReceiveMessage")
    }

    async fn pull_message(
        &self,
        _: Request<v2::PullMessageRequest>,
    ) -> Answer<Self::PullMessageStream> {
        not_served("PullMessage")
    }

    async fn telemetry(
        &self,
        _: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Answer<Self::TelemetryStream> {
        not_served("Telemetry")
    }

    not_served! {
        query_assignment(v2::QueryAssignmentRequest) -> v2::QueryAssignmentResponse;
        ack_message(v2::AckMessageRequest) -> v2::AckMessageResponse;
        forward_message_to_dead_letter_queue(v2::ForwardMessageToDeadLetterQueueRequest)
            -> v2::ForwardMessageToDeadLetterQueueResponse;
        update_offset(v2::UpdateOffsetRequest) -> v2::UpdateOffsetResponse;
        get_offset(v2::GetOffsetRequest) -> v2::GetOffsetResponse;
        query_offset(v2::QueryOffsetRequest) -> v2::QueryOffsetResponse;
        end_transaction(v2::EndTransactionRequest) -> v2::EndTransactionResponse;
        notify_client_termination(v2::NotifyClientTerminationRequest)
            -> v2::NotifyClientTerminationResponse;
        change_invisible_duration(v2::ChangeInvisibleDurationRequest)
            -> v2::ChangeInvisibleDurationResponse;
        recall_message(v2::RecallMessageRequest) -> v2::RecallMessageResponse;
        sync_lite_subscription(v2::SyncLiteSubscriptionRequest) -> v2::SyncLiteSubscriptionResponse;
    }
}
