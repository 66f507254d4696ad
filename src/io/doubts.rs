//! What somebody should look at in the gateway when a recording has been made: said once for each.

use tracing::warn;

use crate::id::Channel;
use crate::manifest::Manifest;

/// Says what a manifest tells of the gateway that a listener would not find out.
pub(super) fn warn_of(manifest: &Manifest) {
    let connection = manifest.connection_id.as_str();
    let has = |reason: &str| manifest.reasons.iter().any(|said| said == reason);
    if has("encrypted_media") {
        let both = Channel::BOTH.into_iter().zip([&manifest.channels.caller, &manifest.channels.ai]);
        let [caller, ai] = [manifest.channels.caller.encrypted, manifest.channels.ai.encrypted];
        let channel: Vec<&str> =
            both.filter(|(_, counts)| counts.encrypted > 0).map(|(channel, _)| channel.name()).collect();
        let (channel, reason) = (channel.join(" and "), "encrypted_media");
        warn!(connection, channel, caller, ai, reason, "audio came encrypted, the recording is silent there");
    }
    if has("gateway_clock_ignored") {
        let reason = "gateway_clock_ignored";
        warn!(connection, reason, "the gateway's times make no sense, the daemon's are used");
    }
    if has("gateway_clock_corrected") {
        let reason = "gateway_clock_corrected";
        warn!(
            connection,
            reason, "the gateway's times are in another unit or by another clock, and were put right"
        );
    }
}
