//! Counts every request to the API server, by verb and resource.
//! Invariant: a request that leaves this process is counted, whoever sends it; Lease renewals stand out as resource
//! `leases`, so that the rest shows whether the operator is quiet at rest.
//! Leaves the requests as they are.

use std::task::{Context, Poll};

use http::{Method, Request};
use tower::{Layer, Service};

/// Puts the counter around the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountRequests;

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S>(S);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner)
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let labels = Labels::of(request.method(), request.uri().path(), request.uri().query());
        metrics::counter!(
            "gantry_operator_api_requests_total",
            "verb" => labels.verb, "resource" => labels.resource
        )
        .increment(1);
        self.0.call(request)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Labels {
    verb: &'static str,
    /// Plural name, with `/status` or another subresource.
    resource: String,
}

impl Labels {
    fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        // /api/VERSION/… or /apis/GROUP/VERSION/…
        let prefix = match parts.next() {
            Some("api") => 1,
            Some("apis") => 2,
            _ => return Self { verb: verb(method, false, false), resource: "other".into() },
        };
        let mut rest: Vec<&str> = parts.skip(prefix).collect();
        if rest.len() > 2 && rest[0] == "namespaces" {
            rest.drain(..2);
        }
        let resource = match rest[..] {
            [] => "other".to_owned(),
            [plural] | [plural, _] => plural.to_owned(),
            [plural, _, subresource, ..] => format!("{plural}/{subresource}"),
        };
        let watched = query.is_some_and(|query| query.split('&').any(|item| item == "watch=true"));
        Self { verb: verb(method, rest.len() > 1, watched), resource }
    }
}

fn verb(method: &Method, named: bool, watched: bool) -> &'static str {
    match *method {
        Method::GET if watched => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_by_verb_and_resource_and_never_by_object() {
        let cases = [
            (Method::GET, "/api/v1/pods", Some("a=b&watch=true"), "watch", "pods"),
            (Method::GET, "/api/v1/namespaces/ns/pods", None, "list", "pods"),
            (Method::DELETE, "/api/v1/namespaces/ns/pods/x", None, "delete", "pods"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/ns/statefulsets/x",
                None,
                "patch",
                "statefulsets",
            ),
            (
                Method::PATCH,
                "/apis/gantry.dev/v1alpha1/namespaces/ns/topics/t/status",
                Some("fieldManager=x"),
                "patch",
                "topics/status",
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l",
                None,
                "update",
                "leases",
            ),
            (Method::GET, "/api/v1/namespaces/ns", None, "get", "namespaces"),
            (Method::GET, "/version", None, "list", "other"),
        ];
        for (method, path, query, verb, resource) in cases {
            let labels = Labels::of(&method, path, query);
            assert_eq!(labels, Labels { verb, resource: resource.into() }, "{method} {path}");
        }
    }
}
