//! How far placement may look around: so often for each packet, whatever the packets say of their times.
//!
//! Some questions are answered by what lies within seconds of media time. A sender can put any number of packets into a
//! second of it, or let it go to and fro for ever, so time alone is no bound. What a call of its length never needs, no call
//! gets: then a question is answered as if there were nothing more to see.

/// Packets looked at for each packet there is. A real call needs up to 200, where half of its packets of 2.5 ms are lost.
const LOOKS_EACH: usize = 256;

/// The looks that are left.
#[derive(Debug)]
pub(super) struct Looks(usize);

impl Looks {
    /// Those of a stretch of so many packets.
    pub(super) fn at(packets: usize) -> Self {
        Self(packets.saturating_mul(LOOKS_EACH))
    }

    /// Takes one; whether there was one left.
    pub(super) fn take(&mut self) -> bool {
        let is_left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        is_left
    }
}
