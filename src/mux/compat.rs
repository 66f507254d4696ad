//! The format for players that know nothing else: both channels decoded and encoded as one stream.
//!
//! One Opus stream of two coupled channels (mapping family 0), 20 ms packets. The encoder delays by the 312 samples
//! that the file's pre-skip drops, so that sample 0 of the recording is the first one heard.

use opus::{Application, Bitrate, Channels, Encoder};

use super::anew::BLOCK;

/// Two voices, seldom at once, are clear of artefacts at this; the command that this replaces took 96 kb/s for it.
const STEREO_BITS_PER_SECOND: i32 = 64_000;
const MONO_BITS_PER_SECOND: i32 = 40_000;
/// What libopus' manual recommends as the room for a packet.
const PACKET_MAX_BYTES: usize = 4000;

/// An encoder of one or two channels.
pub struct Compat {
    encoder: Encoder,
    gains: Vec<f32>,
    woven: Vec<f32>,
    packet: [u8; PACKET_MAX_BYTES],
}

impl Compat {
    /// Sets the encoder up for one channel, or two: as many as there are gains, in decibels.
    ///
    /// # Errors
    /// Where libopus has no memory.
    pub fn new(gains_db: &[f32]) -> Result<Self, opus::Error> {
        let (channels, bits) = match gains_db {
            [_] => (Channels::Mono, MONO_BITS_PER_SECOND),
            _ => (Channels::Stereo, STEREO_BITS_PER_SECOND),
        };
        let mut encoder = Encoder::new(48_000, channels, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(bits))?;
        let gains: Vec<f32> = gains_db.iter().map(|db| 10f32.powf(db / 20.0)).collect();
        let woven = vec![0.0; BLOCK * gains.len()];
        Ok(Self { woven, encoder, gains, packet: [0; PACKET_MAX_BYTES] })
    }

    /// Encodes the next 20 ms of each channel and appends the packet to `out`.
    ///
    /// # Errors
    /// Where libopus refuses.
    pub fn encode(&mut self, blocks: &[[f32; BLOCK]], out: &mut Vec<u8>) -> Result<(), opus::Error> {
        let count = self.gains.len();
        for (channel, (block, gain)) in blocks.iter().zip(&self.gains).enumerate() {
            for (sample, woven) in block.iter().zip(self.woven.iter_mut().skip(channel).step_by(count)) {
                *woven = (sample * gain).clamp(-1.0, 1.0);
            }
        }
        let length = self.encoder.encode_float(&self.woven, &mut self.packet)?;
        out.extend_from_slice(&self.packet[..length]);
        Ok(())
    }
}
