//! What can be seen of live connections: a look at their state, and the manifest that a call would get if it ended now.
//!
//! The look costs a lock for the time of a copy, and reads no disk. The manifest is made as the recording's would be,
//! out of the spool file as far as it is written: once through the file, and the memory of rendering it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{debug, warn};

use super::demand::Demand;
use super::ingest::Ingest;
use super::render::{Options, read_ledger_while};
use super::slot::Slot;
use super::spool_dir::ReadError;
use super::spool_writer::lock;
use crate::connection::pauses::Stamp;
use crate::connection::vigil::{Noticed, Silence};
use crate::id::Channel;
use crate::manifest;
use crate::recording::arrange;
use crate::spool::SealCause;
use crate::time::{Mono, Wall, micros};

/// How long a disk may take until somebody who waits for it is told that it does not write.
const DISK_PATIENCE: Duration = Duration::from_secs(1);
/// How often the writer is looked at meanwhile. It writes every 70 ms or so.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A look at a live connection. What the manifest has, too, is called as there.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "README.md says what each is")]
pub struct Live {
    pub connection_id: String,
    pub conversation_id: Option<String>,
    pub tenant: Option<String>,
    pub part: u16,
    pub state: &'static str,
    pub opened_at: String,
    pub idle_ms: u64,
    pub holds: u32,
    pub recorded: bool,
    pub channels: LiveChannels,
}

/// A look at both channels.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "README.md says what each is")]
pub struct LiveChannels {
    pub caller: LiveChannel,
    pub ai: LiveChannel,
}

/// A look at one channel.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "README.md says what each is")]
pub struct LiveChannel {
    pub referenced: bool,
    pub pause: Option<&'static str>,
    pub missing: Option<&'static str>,
}

/// Some of the live connections, in the order of their ids.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "README.md says what each is")]
pub struct LivePage {
    pub connections: Vec<Live>,
    pub total: usize,
    pub next: Option<String>,
}

impl Ingest {
    /// The same, reporting a channel that is not heard while the other one talks for so long, unless that is zero.
    #[must_use]
    pub fn watching(mut self, silence_alert: Duration) -> Self {
        self.silence_alert = Some(silence_alert).filter(|patience| !patience.is_zero());
        self
    }

    /// Reports that a channel is not heard, or is again.
    pub(super) fn report(&self, slot: &Slot, noticed: Noticed) {
        let connection = slot.id.as_str();
        match noticed {
            Noticed::Missing(channel, silence) => {
                self.metrics().missing[channel.index()].add(silence);
                let reason = silence.name();
                warn!(connection, %channel, reason, "channel is not heard while the other one talks");
            }
            Noticed::Back(channel) => debug!(connection, %channel, "channel is heard again"),
        }
    }

    /// Whether a time that somebody tells of a connection is within a day of the gateway's clock, or of the daemon's where that is
    /// not known.
    #[must_use]
    pub fn is_credible(&self, id: &str, gateway: Wall) -> bool {
        let at = Stamp { received: self.clock.wall(), gateway: Some(gateway) };
        let slot = self.connections.get(id).map(|slot| Arc::clone(&slot));
        slot.is_none_or(|slot| lock(&slot.state).call.connection.claims().is_credible(at))
    }

    /// Looks at a connection, which may have ended less than a minute ago.
    #[must_use]
    pub fn look(&self, id: &str) -> Option<Live> {
        let slot = Arc::clone(&*self.connections.get(id)?);
        Some(look(&slot, self.clock.now()))
    }

    /// Looks at the live connections whose ids come after `after`, `count` of them at most.
    #[must_use]
    pub fn look_at_all(&self, after: Option<&str>, count: usize) -> LivePage {
        let now = self.clock.now();
        let mut live: Vec<_> =
            self.slots().into_iter().filter(|slot| lock(&slot.state).call.connection.is_live()).collect();
        let total = live.len();
        live.retain(|slot| after.is_none_or(|after| slot.id.as_str() > after));
        live.sort_by(|a, b| a.id.cmp(&b.id));
        let last = live.get(..count).filter(|page| page.len() < live.len()).and_then(<[_]>::last);
        let next = last.map(|slot| slot.id.to_string());
        let connections = live.iter().take(count).map(|slot| look(slot, now)).collect();
        LivePage { connections, total, next }
    }

    /// Waits until all that has been received before is in the spool. False if the disk does not take it.
    pub async fn is_on_disk(&self) -> bool {
        let rounds = self.writer.rounds() + 2;
        let until = self.now().after(DISK_PATIENCE);
        while self.writer.rounds() < rounds && self.now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.writer.rounds() >= rounds && !self.writer.is_failing()
    }
}

fn look(slot: &Slot, now: Mono) -> Live {
    let state = lock(&slot.state);
    let view = state.call.connection.view();
    let channel = |channel: Channel| LiveChannel {
        referenced: view.references[channel.index()],
        pause: view.pauses[channel.index()].map(|mode| mode.name()),
        missing: view.missing[channel.index()].map(Silence::name),
    };
    Live {
        connection_id: slot.id.to_string(),
        conversation_id: state.call.metadata.conversation_id.clone(),
        tenant: state.call.metadata.tenant.clone(),
        part: slot.part,
        state: view.state,
        opened_at: slot.opened.to_rfc3339(),
        idle_ms: micros(now.since(view.last_frame)) / 1000,
        holds: view.holds,
        recorded: view.is_recorded,
        channels: LiveChannels { caller: channel(Channel::Caller), ai: channel(Channel::Ai) },
    }
}

/// Makes the manifest that a call would get if it ended `now`, without what only a finished file has.
///
/// # Errors
/// [`ReadError`] where the spool file cannot be read, or nobody waits for it any more.
pub fn manifest_so_far(
    spool: &Path,
    now: Mono,
    options: &Options,
    demand: &Demand,
) -> Result<Map<String, Value>, ReadError> {
    let (mut ledger, tail) = read_ledger_while(demand, spool, options)?;
    // Else it would count as one that was found after a crash.
    ledger.seal = ledger.seal.or(Some(SealCause::Released));
    let call = arrange(&ledger, options.ai_offset_ms, options.longest);
    let has_audio = call.channels.iter().any(|channel| !channel.packets.is_empty());
    let end = if has_audio { ledger.time_of(now).max(call.end) } else { call.start };
    let duration = call.position(end);
    let manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), duration);
    let Ok(Value::Object(mut manifest)) = serde_json::to_value(manifest) else {
        unreachable!("a manifest is an object with keys of text")
    };
    for name in ["schema", "ended_at", "file"] {
        manifest.shift_remove(name);
    }
    if let Some(Value::Object(channels)) = manifest.get_mut("channels") {
        for channel in channels.values_mut().filter_map(Value::as_object_mut) {
            for name in ["transcoded", "slips", "max_shift_ms", "error_ms"] {
                channel.shift_remove(name);
            }
        }
    }
    Ok(manifest)
}
