//! What requests of all gRPC calls may hold together, from their first byte until they are answered.
//! Invariant: beyond the bound a call that goes on sending is ended with `RESOURCE_EXHAUSTED`, and its bytes are free;
//! one alone is always taken, whose own bound is that of a message.
//! Leaves what the calls mean to the door. A status in band is not possible: the request is not there yet.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::{FutureExt, Map};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body, codegen::http::Request};
use tower::{Layer, Service};

/// The bound, and its use.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Use>);

#[derive(Debug)]
struct Use {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// What one call holds; given back when its request is gone and it is answered.
#[derive(Debug)]
struct Share {
    all: Arc<Use>,
    bytes: AtomicUsize,
}

impl Admission {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Use { bytes: AtomicUsize::new(0), bytes_max }))
    }

    fn share(&self) -> Share {
        Share { all: Arc::clone(&self.0), bytes: AtomicUsize::new(0) }
    }
}

impl Share {
    /// Counts `bytes` more, if they may be held.
    fn take(&self, bytes: usize) -> Result<(), Status> {
        let own = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > own && before + bytes > self.all.bytes_max {
            let words = format!(
                "system busy, start flow control for a while: calls hold {before} bytes, the limit is {}",
                self.all.bytes_max
            );
            return Err(Status::resource_exhausted(words));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A request's body whose bytes are counted.
struct Counted {
    body: Body,
    share: Arc<Share>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.share.take(data.len())
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub(super) struct Admitted<S> {
    inner: S,
    admission: Admission,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Admitted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Map<
        S::Future,
        Box<dyn FnOnce(Result<S::Response, S::Error>) -> Result<S::Response, S::Error> + Send>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let share = Arc::new(self.admission.share());
        let counted = Arc::clone(&share);
        let request = request.map(|body| Body::new(Counted { body, share: counted }));
        // The decoded request lives until the call is answered.
        let answered = Box::new(move |answer| {
            drop(share);
            answer
        });
        self.inner.call(request).map(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_alone_is_taken_and_others_only_within_the_bound() {
        let admission = Admission::new(100);
        let large = admission.share();
        large.take(150).unwrap();
        large.take(50).unwrap();
        let small = admission.share();
        let refused = small.take(1).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop((large, small));
        let (one, other) = (admission.share(), admission.share());
        one.take(60).unwrap();
        other.take(40).unwrap();
        assert!(other.take(1).is_err());
        drop((one, other));
        assert_eq!(admission.0.bytes.load(Ordering::Relaxed), 0);
    }
}
