//! What stands around routes: one service for all layers of ours.
//!
//! A service and not a function between two others: axum would copy the route beneath once more for
//! that, and hold both in boxes of their own.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::{BoxFuture, Either};
use tower::layer::layer_fn;
use tower::{Layer, Service};

/// What happens to a request before its route answers, and to the answer.
pub(crate) trait Around: Clone {
    /// Answers a request: by its route, before or after something else, or in place of it.
    fn answer<F>(&self, request: Request, route: impl FnOnce(Request) -> F) -> Answering<F>
    where
        F: Future<Output = Answered> + Send + 'static;
}

/// The route's own answer, or one that has more to it.
pub(crate) type Answering<F> = Either<F, BoxFuture<'static, Answered>>;

/// An answer; a failure is one too.
pub(crate) type Answered = Result<Response, Infallible>;

/// A route with something around it.
#[derive(Clone)]
pub(crate) struct Surrounded<A, S> {
    around: A,
    route: S,
}

/// Puts `around` around routes.
pub(crate) fn layer<A: Around, S>(
    around: A,
) -> impl Layer<S, Service = Surrounded<A, S>> + Clone + use<A, S> {
    layer_fn(move |route| Surrounded { around: around.clone(), route })
}

impl<A, S> Service<Request> for Surrounded<A, S>
where
    A: Around,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.around.answer(request, |request| self.route.call(request))
    }
}
