//! The routes of the clients' port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reject::{MethodNotAllowed, Rejection};

use super::api::{Api, RequestHead, TokenIn, preflight, read_body};
use super::body::{BoxError, EventBody, detach};
use super::dashboard;
use super::devices::{device, devices};
use super::error::RequestError;
use super::events::events;
use super::metrics::{HttpMetrics, RequestLabels, Route};
use super::params::Subscription;
use super::path_prefix::{self, PathPrefix};
use super::server::SocketControl;

/// Host and port as the client named them, whatever the version of HTTP. An extension of each request.
#[derive(Debug, Clone)]
struct RequestHost(Option<Authority>);

/// The address that a client is sent to. An extension of a request.
#[derive(Debug, Clone)]
struct Redirect(HeaderValue);

pub(crate) fn service(
    api: Arc<Api>,
    with_dashboard: bool,
    prefixes: Vec<PathPrefix>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Either<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + use<>, EventBody>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<> {
    let metrics = api.metrics.clone();
    let routes = v1(api).or(redirects()).unify().or(files(with_dashboard)).unify();
    let routes = routes.recover(rejected).unify();
    let routes = TowerToHyperService::new(warp::service(routes));
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(location) = path_prefix::remove(&prefixes, request.uri_mut()) {
            request.extensions_mut().insert(Redirect(location));
        }
        let host = host(&request);
        request.extensions_mut().insert(RequestHost(host));
        let log = RequestLog::begin(&request, metrics.clone());
        let version = request.version();
        let answer = routes.call(request);
        async move {
            let mut answer = answer.await;
            if let Ok(response) = &mut answer {
                allow(response, log.route);
                log.end(response);
            }
            answer.map(detach).map(|mut response| {
                // A connection that carried an event stream must not be used again: on it the client, or a
                // proxy, would come back to this pod, which may just have sent the client to another one.
                if version <= Version::HTTP_11 && matches!(response.body(), Either::Right(_)) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            })
        }
    })
}

fn v1(api: Arc<Api>) -> BoxedFilter<(Response<Bytes>,)> {
    // Not warp::options(): its rejection would turn every unknown address into one that takes other methods.
    let preflights = warp::path("v1").and(warp::method()).and_then(async |method: Method| {
        if method == Method::OPTIONS { Ok(preflight()) } else { Err(warp::reject::not_found()) }
    });
    event_routes(&api)
        .or(device_routes(&api))
        .unify()
        .map(|answer: Result<_, RequestError>| answer.unwrap_or_else(RequestError::into_response))
        .or(preflights)
        .unify()
        .boxed()
}

/// `/v1/{tenant}/…`.
fn tenant() -> impl Filter<Extract = (String,), Error = Rejection> + Clone {
    warp::path("v1").and(warp::path::param::<String>())
}

/// Extracts the API and the head of the request for a handler.
fn with(
    api: &Arc<Api>,
) -> impl Filter<Extract = (Arc<Api>, RequestHead), Error = Infallible> + Clone + use<> {
    let api = Arc::clone(api);
    warp::any().map(move || Arc::clone(&api)).and(head())
}

fn event_routes(api: &Arc<Api>) -> BoxedFilter<(Result<Response<Bytes>, RequestError>,)> {
    let get = tenant()
        .and(warp::path("events"))
        .and(warp::path::end())
        .and(warp::get())
        .and(with(api))
        .and(socket())
        .then(|tenant: String, api: Arc<Api>, head: RequestHead, socket| async move {
            let read = || Subscription::from_events_query(&head.query);
            events(&api, &tenant, &head, TokenIn::HeaderOrQuery, socket, read)
        });
    let post = tenant()
        .and(warp::path("events"))
        .and(warp::path::end())
        .and(warp::post())
        .and(with(api))
        .and(socket())
        .and(warp::body::stream())
        .then(|tenant: String, api: Arc<Api>, head: RequestHead, socket, body| async move {
            // A caller without access is refused before the body is read.
            api.admit(&tenant, &head, TokenIn::HeaderOnly)?;
            let body = read_body(&head.headers, body).await?;
            let read = || Subscription::from_events_body(&head.query, &body);
            events(&api, &tenant, &head, TokenIn::HeaderOnly, socket, read)
        });
    get.or(post).unify().boxed()
}

fn device_routes(api: &Arc<Api>) -> BoxedFilter<(Result<Response<Bytes>, RequestError>,)> {
    let all = tenant()
        .and(warp::path("devices"))
        .and(warp::path::end())
        .and(warp::get())
        .and(with(api))
        .then(|tenant: String, api: Arc<Api>, head: RequestHead| async move {
            devices(&api, &tenant, &head).await
        });
    let one = tenant()
        .and(warp::path("devices"))
        .and(warp::path::tail())
        .and(warp::get())
        .and(with(api))
        // A device code may contain a '/', so the rest of the path is the code.
        .then(|tenant: String, code: warp::path::Tail, api: Arc<Api>, head: RequestHead| async move {
            device(&api, &tenant, code.as_str(), &head).await
        });
    all.or(one).unify().boxed()
}

fn redirects() -> BoxedFilter<(Response<Bytes>,)> {
    warp::ext::optional::<Redirect>()
        .and_then(async |redirect: Option<Redirect>| {
            let Redirect(location) = redirect.ok_or_else(warp::reject::not_found)?;
            let mut response = Response::new(Bytes::new());
            // A browser keeps a permanent one without end, also when the path leads elsewhere one day.
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
            Ok::<_, Rejection>(response)
        })
        .boxed()
}

fn files(with_dashboard: bool) -> BoxedFilter<(Response<Bytes>,)> {
    warp::path::full()
        .and(warp::header::headers_cloned())
        .and_then(move |path: warp::path::FullPath, headers: HeaderMap| async move {
            let file = with_dashboard.then(|| dashboard::file(path.as_str(), &headers)).flatten();
            file.ok_or_else(warp::reject::not_found)
        })
        // After the look-up, so that a wrong method on an unknown path is 404.
        .and(warp::get().or(warp::head()).unify())
        .boxed()
}

fn head() -> impl Filter<Extract = (RequestHead,), Error = Infallible> + Clone {
    warp::header::headers_cloned()
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<RequestHost>())
        .map(|headers, query, host: Option<RequestHost>| {
            let host = host.and_then(|RequestHost(host)| host).map(|authority| authority.to_string());
            RequestHead { headers, host, query }
        })
}

fn socket() -> impl Filter<Extract = (SocketControl,), Error = Infallible> + Clone {
    // Only tests serve requests without a socket.
    warp::ext::optional::<SocketControl>().map(|socket: Option<SocketControl>| socket.unwrap_or_default())
}

/// Returns the host that the request names: in its URI with HTTP/2, in a header with HTTP/1.1.
pub(super) fn host<B>(request: &Request<B>) -> Option<Authority> {
    request.uri().authority().cloned().or_else(|| {
        let header = request.headers().get(header::HOST)?;
        Authority::try_from(header.as_bytes()).ok()
    })
}

/// Turns warp's rejections into error bodies.
async fn rejected(rejection: Rejection) -> Result<Response<Bytes>, Infallible> {
    let error = if rejection.is_not_found() {
        RequestError::NotFound("there is no such address".to_owned())
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        RequestError::MethodNotAllowed
    } else {
        tracing::warn!(?rejection, "unexpected rejection of a request");
        RequestError::Internal
    };
    Ok(error.into_response())
}

/// Adds the header `Allow` to 405, which warp's rejection doesn't carry.
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

/// Logs and counts a request. Never its query, which may hold a token.
struct RequestLog {
    method: Method,
    path: String,
    route: Route,
    begin: Instant,
    metrics: HttpMetrics,
}

impl RequestLog {
    fn begin<B>(request: &Request<B>, metrics: HttpMetrics) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path());
        let (route, path) = (route(path), path.chars().take(256).collect());
        Self { method, path, route, begin: Instant::now(), metrics }
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
