//! The format for players that know nothing else: both channels decoded and encoded as one stream.
//!
//! One Opus stream of two coupled channels (mapping family 0), 20 ms packets. The encoder delays by the 312 samples
//! that the file's pre-skip drops, so that sample 0 of the recording is the first one heard.

use opus::{Application, Bitrate, Channels, Encoder};

use super::anew::BLOCK;

/// Two voices, seldom at once, are clear of artefacts at this; the command that this replaces took 96 kb/s for it.
const STEREO_BITS_PER_SECOND: i32 = 64_000;
const MONO_BITS_PER_SECOND: i32 = 40_000;
/// Behind so many packets of digital silence that are all alike, the encoder has nothing left to say, and is not asked: 1 s. An
/// hour between two words takes half a minute otherwise.
const ALIKE_MIN: u32 = 50;
/// What libopus' manual recommends as the room for a packet.
const PACKET_MAX_BYTES: usize = 4000;

/// An encoder of one or two channels.
pub struct Compat {
    encoder: Encoder,
    gains: Vec<f32>,
    woven: Vec<f32>,
    packet: [u8; PACKET_MAX_BYTES],
    /// The packet before this one, and how many of digital silence there were like it.
    before: Vec<u8>,
    alike: u32,
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
        Ok(Self { woven, encoder, gains, packet: [0; PACKET_MAX_BYTES], before: Vec::new(), alike: 0 })
    }

    /// Encodes the next 20 ms of each channel and appends the packet to `out`.
    ///
    /// # Errors
    /// Where libopus refuses.
    pub fn encode(&mut self, blocks: &[[f32; BLOCK]], out: &mut Vec<u8>) -> Result<(), opus::Error> {
        let is_silent = blocks.iter().flatten().all(|sample| *sample == 0.0);
        if is_silent && self.alike >= ALIKE_MIN {
            out.extend_from_slice(&self.before);
            return Ok(());
        }
        let count = self.gains.len();
        for (channel, (block, gain)) in blocks.iter().zip(&self.gains).enumerate() {
            for (sample, woven) in block.iter().zip(self.woven.iter_mut().skip(channel).step_by(count)) {
                *woven = (sample * gain).clamp(-1.0, 1.0);
            }
        }
        let length = self.encoder.encode_float(&self.woven, &mut self.packet)?;
        let packet = &self.packet[..length];
        out.extend_from_slice(packet);
        self.alike = if is_silent && packet == self.before { self.alike + 1 } else { 0 };
        self.before.clear();
        self.before.extend_from_slice(packet);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "sound made for a test")]
mod tests {
    use super::*;
    use opus::Decoder;

    /// A second of a tone, ten of digital silence, and a second of a tone.
    fn blocks() -> Vec<[[f32; BLOCK]; 2]> {
        let tone = |n: usize| (n as f32 * 0.06).sin() * 0.3;
        let block = |number: usize| {
            let mut block = [0.0; BLOCK];
            if !(50..550).contains(&number) {
                block.iter_mut().enumerate().for_each(|(n, sample)| *sample = tone(number * BLOCK + n));
            }
            [block, block]
        };
        (0..600).map(block).collect()
    }

    #[test]
    fn silence_that_is_not_encoded_sounds_like_silence_that_is_and_so_does_what_follows() {
        let mut compat = Compat::new(&[0.0, 0.0]).unwrap();
        let mut always = Compat::new(&[0.0, 0.0]).unwrap();
        let mut decoders = [0, 1].map(|_| Decoder::new(48_000, Channels::Stereo).unwrap());
        let mut not_encoded = 0;
        let (mut said, mut heard) = (Vec::new(), [Vec::new(), Vec::new()]);
        for blocks in blocks() {
            not_encoded += usize::from(compat.alike >= ALIKE_MIN);
            always.alike = 0;
            said.extend_from_slice(&blocks[0]);
            for ((compat, decoder), heard) in
                [&mut compat, &mut always].into_iter().zip(&mut decoders).zip(&mut heard)
            {
                let (mut packet, mut sound) = (Vec::new(), vec![0.0; BLOCK * 2]);
                compat.encode(&blocks, &mut packet).unwrap();
                decoder.decode_float(&packet, &mut sound, false).unwrap();
                heard.extend(sound.iter().step_by(2).copied());
            }
        }
        assert!(not_encoded > 400, "{not_encoded}");
        // What comes before, the first 100 ms of what follows, and the rest: how far each is from what was said.
        for range in [0..550 * BLOCK, 550 * BLOCK..555 * BLOCK, 555 * BLOCK..598 * BLOCK] {
            let [own, other] = heard
                .each_ref()
                .map(|heard| -> f32 { range.clone().map(|at| (heard[at + 312] - said[at]).powi(2)).sum() });
            assert!(own <= other * 1.5 + 1e-6, "{range:?}: {own} {other}");
        }
    }
}
