//! `sidetape ready`: asks a running daemon whether it takes calls, as `/readyz` says.
//!
//! It is what a health check runs in a container that has neither a shell nor an HTTP client, or whose HTTP port is a
//! Unix socket.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Fault, Faults, Settings, resolve};

/// A daemon that has not answered by then is not well, whatever it would say later.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any answer that `/readyz` gives.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: sidetape\r\nConnection: close\r\n\r\n";

/// Asks a running daemon whether it takes calls, as /readyz says.
#[derive(clap::Args, Clone, Debug)]
pub struct Ready {
    /// The daemon's HTTP address: host:port or unix:/path
    #[arg(long, env = "AUDIO_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: String,
}

impl Ready {
    /// Asks once, and says `ready` on standard output if it is so.
    ///
    /// # Errors
    /// A daemon that cannot be reached, does not answer in five seconds, or says why it is not ready.
    pub async fn run(self) -> anyhow::Result<()> {
        // Asking another machine needs nobody's leave: that is for those who listen.
        let allow_remote = Some("true".to_owned());
        let settings = Settings { http_listen: Some(self.http_listen), allow_remote, ..Settings::default() };
        let Some(address) = resolve(&settings)?.http_listen else {
            let takes = "the daemon's own address, which is not set".to_owned();
            return Err(Faults(vec![Fault {
                variable: "AUDIO_HTTP_LISTEN".into(),
                value: String::new(),
                takes,
            }])
            .into());
        };
        let answer = tokio::time::timeout(PATIENCE, ask(&address));
        let answer = answer.await.with_context(|| format!("{address} did not answer in {PATIENCE:?}"))??;
        judge(&answer)?;
        println!("ready");
        Ok(())
    }
}

/// Sends the request, and returns all that comes back.
async fn ask(address: &str) -> anyhow::Result<Vec<u8>> {
    let connecting = || format!("connecting to {address}");
    let answer = match address.strip_prefix("unix:") {
        Some(path) => exchange(UnixStream::connect(path).await.with_context(connecting)?).await,
        None => exchange(TcpStream::connect(address).await.with_context(connecting)?).await,
    };
    answer.with_context(|| format!("asking {address}"))
}

async fn exchange(mut link: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<Vec<u8>> {
    link.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    link.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Takes status 200 for good, and the problem's own words for why not.
fn judge(answer: &[u8]) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let problem: Option<Value> = serde_json::from_str(body).ok();
    match status {
        Some("200") => Ok(()),
        Some(status) => {
            let detail = problem
                .as_ref()
                .and_then(|problem| problem["detail"].as_str())
                .unwrap_or("it does not say why");
            bail!("not ready ({status}): {detail}")
        }
        None => bail!("what listens there does not speak HTTP"),
    }
}
