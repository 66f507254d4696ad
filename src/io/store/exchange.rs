//! What goes over the wire to S3 and Azure, seen from beside `object_store`: that crate's errors and answers leave out what
//! the outbox needs to know, and its multipart uploads overwrite.
//!
//! - The status, `Retry-After`, `Date` and `Content-MD5` of the last answer are noted for the task that asked.
//! - Where a store asks to be left alone, `object_store` does not try again; the outbox does, in time.
//! - `If-None-Match: *` is added to the request that completes a multipart upload to S3. It need not be signed.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use super::answer;
use crate::io::clock::Clock;

/// Signed requests are refused when they are a quarter of an hour off.
const SKEW_MAX_SECS: u64 = 14 * 60;

/// What the last answer said.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Duration>,
    /// In Base64, of what the store has received.
    pub(super) content_md5: Option<String>,
    pub(super) is_clock_wrong: bool,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// Does something that asks a store, and tells what the last answer said.
pub(super) async fn noted<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let noting = async {
        let done = work.await;
        (done, notes())
    };
    NOTES.scope(RefCell::default(), noting).await
}

/// What the last answer said, within [`noted`].
pub(super) fn notes() -> Notes {
    NOTES.try_with(|notes| notes.borrow().clone()).unwrap_or_default()
}

/// Connects as `object_store` does, and looks on.
#[derive(Debug)]
pub(super) struct Witness;

#[derive(Debug)]
struct Witnessed(HttpClient);

impl HttpConnector for Witness {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Witnessed(ReqwestConnector::default().connect(options)?)))
    }
}

#[async_trait]
impl HttpService for Witnessed {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        if request.method() == "POST" && query.contains("uploadId=") {
            let any = "*".parse().expect("a star is a header value");
            request.headers_mut().insert("if-none-match", any);
        }
        note(|notes| *notes = Notes::default());
        let response = self.0.execute(request).await?;
        let header = |name| response.headers().get(name)?.to_str().ok();
        let retry_after = answer::retry_after(header("retry-after"), header("date"));
        note(|notes| {
            notes.status = Some(response.status().as_u16());
            notes.retry_after = retry_after;
            notes.content_md5 = header("content-md5").map(str::to_owned);
            notes.is_clock_wrong = answer::is_far_off(header("date"), Clock::start().wall(), SKEW_MAX_SECS);
        });
        let is_overloaded = matches!(response.status().as_u16(), 429 | 503);
        match retry_after.filter(|_| is_overloaded) {
            // Of this kind it is not tried again.
            Some(_) => Err(HttpError::new(
                HttpErrorKind::Decode,
                io::Error::other(format!("the store answered {}", response.status())),
            )),
            None => Ok(response),
        }
    }
}

fn note(write: impl FnOnce(&mut Notes)) {
    // Credentials may be fetched by a task of their own, which notes nothing.
    if NOTES.try_with(|notes| write(&mut notes.borrow_mut())).is_err() {
        tracing::trace!("an answer outside of any request");
    }
}
