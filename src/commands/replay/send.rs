//! A plan is sent: as fast as the daemon reads, or as fast as the call was.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Plan;
use crate::client::Endpoint;
use crate::client::tap_client::TapClient;
use crate::config::Secret;

/// The daemon looks at what is over a bit later than it could.
const LINGER_MARGIN: Duration = Duration::from_millis(500);

/// Sends a plan, signed if there is a key, and returns how long that took, once the daemon has read all of it. Before another
/// recording begins it waits for the daemon to end the one before, which lingers for as long as that. A progress bar runs
/// on standard error meanwhile, if that is a terminal.
///
/// # Errors
/// A daemon that does not answer.
pub async fn send(
    plan: &Plan,
    to: &Endpoint,
    key: Option<&Secret>,
    is_realtime: bool,
    linger: Duration,
) -> anyhow::Result<Duration> {
    let begin = tokio::time::Instant::now();
    let mut client = TapClient::connect(to, key).await?;
    let frames = u64::try_from(plan.frames.len()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("sending the call {wide_bar} {pos} of {len} frames")
        .expect("the template is valid");
    let bar = ProgressBar::new(frames).with_style(style);
    let mut begins = plan.begins.iter().peekable();
    for (place, frame) in plan.frames.iter().enumerate() {
        if begins.next_if(|begin| **begin == place).is_some() {
            client.confirm().await?;
            tokio::time::sleep(linger + LINGER_MARGIN).await;
        }
        if is_realtime {
            tokio::time::sleep_until(begin + frame.offset).await;
        }
        client.send(&frame.bytes).await?;
        bar.inc(1);
    }
    client.confirm().await?;
    bar.finish();
    if !bar.is_hidden() {
        // The bar stays, and leaves the cursor behind it.
        eprintln!();
    }
    Ok(begin.elapsed())
}
