//! Which address is answered by what.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reject::{MethodNotAllowed, Rejection};

use super::api::{Api, Head, TokenIn, preflight, read_body};
use super::body::{BoxError, ResponseBody, detach};
use super::dashboard;
use super::devices::{device, devices};
use super::error::RequestError;
use super::events::events;
use super::params::Subscription;
use super::server::Socket;
use crate::metrics::{HttpMetrics, RequestLabels, Route};

/// What the client calls this server, whatever the version of HTTP. An extension of each request.
#[derive(Debug, Clone)]
struct Host(Option<Authority>);

type Answer = Result<Response<Bytes>, Infallible>;

/// The service of the first port.
pub(crate) fn service(
    api: Arc<Api>,
    with_dashboard: bool,
) -> impl Service<
    Request<Incoming>,
    Response = Response<ResponseBody<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + use<>>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<> {
    let metrics = api.metrics.clone();
    let routes = v1(api).or(files(with_dashboard)).unify().recover(rejected).unify();
    let routes = TowerToHyperService::new(warp::service(routes));
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let host = host(&request);
        request.extensions_mut().insert(Host(host));
        let log = Log::begin(&request, metrics.clone());
        let version = request.version();
        let answer = routes.call(request);
        async move {
            let mut answer = answer.await;
            if let Ok(response) = &mut answer {
                allow(response, log.route);
                log.end(response);
            }
            answer.map(detach).map(|mut response| {
                // A connection that has carried an event stream isn't used again: on it the client, or the
                // proxy before it, would come back to this pod, which may just have sent it to another one.
                if version <= Version::HTTP_11 && matches!(response.body(), ResponseBody::Events(_)) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            })
        }
    })
}

fn v1(api: Arc<Api>) -> BoxedFilter<(Response<Bytes>,)> {
    let with_api = warp::any().map(move || Arc::clone(&api));
    let tenant = || warp::path("v1").and(warp::path::param::<String>());

    let get_events = tenant()
        .and(warp::path("events"))
        .and(warp::path::end())
        .and(warp::get())
        .and(with_api.clone())
        .and(head())
        .and(socket())
        .then(|tenant: String, api: Arc<Api>, head: Head, socket| async move {
            let read = || Subscription::from_events_query(&head.query);
            events(&api, &tenant, &head, TokenIn::HeaderOrQuery, socket, read)
        });
    let post_events = tenant()
        .and(warp::path("events"))
        .and(warp::path::end())
        .and(warp::post())
        .and(with_api.clone())
        .and(head())
        .and(socket())
        .and(warp::body::stream())
        .then(|tenant: String, api: Arc<Api>, head: Head, socket, body| async move {
            // Who may not read at all is told so before a body is waited for.
            if let Err(super::api::Refusal::Error(error)) = api.admit(&tenant, &head, TokenIn::HeaderOnly) {
                return Err(error);
            }
            let body = read_body(&head.headers, body).await?;
            let read = || Subscription::from_events_body(&head.query, &body);
            events(&api, &tenant, &head, TokenIn::HeaderOnly, socket, read)
        });
    let get_devices = tenant()
        .and(warp::path("devices"))
        .and(warp::path::end())
        .and(warp::get())
        .and(with_api.clone())
        .and(head())
        .then(|tenant: String, api: Arc<Api>, head: Head| async move { devices(&api, &tenant, &head).await });
    let get_device = tenant()
        .and(warp::path("devices"))
        .and(warp::path::tail())
        .and(warp::get())
        .and(with_api)
        .and(head())
        // A device code may hold a '/', so the rest of the path is the code.
        .then(|tenant: String, code: warp::path::Tail, api: Arc<Api>, head: Head| async move {
            device(&api, &tenant, code.as_str(), &head).await
        });
    // Not warp::options(), whose refusal would make every address that isn't there one that takes other
    // methods.
    let preflights = warp::path("v1").and(warp::method()).and_then(async |method: Method| {
        if method == Method::OPTIONS { Ok(preflight()) } else { Err(warp::reject::not_found()) }
    });

    get_events
        .or(post_events)
        .unify()
        .or(get_devices)
        .unify()
        .or(get_device)
        .unify()
        .map(|answer: Result<_, RequestError>| answer.unwrap_or_else(RequestError::into_response))
        .or(preflights)
        .unify()
        .boxed()
}

fn files(with_dashboard: bool) -> BoxedFilter<(Response<Bytes>,)> {
    warp::path::full()
        .and(warp::header::headers_cloned())
        .and_then(move |path: warp::path::FullPath, headers: HeaderMap| async move {
            let file = with_dashboard.then(|| dashboard::file(path.as_str(), &headers)).flatten();
            file.ok_or_else(warp::reject::not_found)
        })
        // Behind the look-up, so that a wrong method on a path that isn't there is 404.
        .and(warp::get().or(warp::head()).unify())
        .boxed()
}

fn head() -> impl Filter<Extract = (Head,), Error = Infallible> + Clone {
    warp::header::headers_cloned()
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<Host>())
        .map(|headers, query, host: Option<Host>| {
            let host = host.and_then(|Host(host)| host).map(|authority| authority.to_string());
            Head { headers, host, query }
        })
}

fn socket() -> impl Filter<Extract = (Socket,), Error = Infallible> + Clone {
    // A socket that nobody can end is one of a test.
    warp::ext::optional::<Socket>().map(|socket: Option<Socket>| socket.unwrap_or_default())
}

/// HTTP/2 has the host in the address, HTTP/1.1 in a header.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    request.uri().authority().cloned().or_else(|| {
        let header = request.headers().get(header::HOST)?;
        Authority::try_from(header.as_bytes()).ok()
    })
}

/// Makes what warp refuses an answer of ours.
async fn rejected(rejection: Rejection) -> Answer {
    let error = if rejection.is_not_found() {
        RequestError::NotFound("there is no such address".to_owned())
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        RequestError::MethodNotAllowed
    } else {
        tracing::warn!(?rejection, "a request was refused in a way that is not expected");
        RequestError::Internal
    };
    Ok(error.into_response())
}

/// With 405 comes what would be right, which warp's rejection doesn't know.
fn allow<B>(response: &mut Response<B>, route: Route) {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = match route {
            Route::Events => "GET, POST, OPTIONS",
            Route::Devices | Route::Device => "GET, OPTIONS",
            Route::Dashboard | Route::Other => "GET, HEAD",
        };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
}

/// One line and one count for each request; never its query, which may hold a token.
struct Log {
    method: Method,
    path: String,
    route: Route,
    begin: Instant,
    metrics: HttpMetrics,
}

impl Log {
    fn begin<B>(request: &Request<B>, metrics: HttpMetrics) -> Self {
        let path = request.uri().path();
        let shown = path.chars().take(256).collect();
        Self {
            method: request.method().clone(),
            route: route(path),
            path: shown,
            begin: Instant::now(),
            metrics,
        }
    }

    fn end<B>(self, response: &Response<B>) {
        let Self { method, path, route, begin, metrics } = self;
        let status = response.status().as_u16();
        metrics.requests.get_or_create(&RequestLabels { route, status }).inc();
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(%method, path, status, micros, "request");
    }
}

fn route(path: &str) -> Route {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("v1"), Some(_), Some("events"), None) => Route::Events,
        (Some("v1"), Some(_), Some("devices"), None) => Route::Devices,
        (Some("v1"), Some(_), Some("devices"), Some(_)) => Route::Device,
        (Some("v1"), ..) => Route::Other,
        (Some(_), None, ..) => Route::Dashboard,
        _ => Route::Other,
    }
}
