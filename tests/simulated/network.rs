//! The way from a sender to the recorder: jitter, loss, reordering, and links that freeze for a while.

use std::ops::Range;

use super::random::Random;
use super::{Packet, Role, WAY_S, reports};

/// The shape of jitter: most packets are hardly delayed, few are delayed much.
const JITTER_SHAPE: f64 = 1.5;
/// How long a queue takes to fill and to drain.
const QUEUE_RAMP_S: f64 = 1.5;
/// How likely the packet after one lost in a burst is lost too: bursts of three on average.
const BURST_GOES_ON: f64 = 0.65;
/// How far apart packets arrive at least that were held up together.
const BACK_TO_BACK_S: f64 = 0.00005;

/// A path with what goes wrong on it. Probabilities are for each packet.
#[derive(Clone, Default)]
pub(crate) struct Network {
    /// The mean of the delay on top of the least.
    pub(crate) jitter_s: f64,
    /// When nothing comes through; all of it arrives at the end.
    pub(crate) freezes: Vec<Range<f64>>,
    /// When nothing comes through, and nothing arrives later.
    pub(crate) outages: Vec<Range<f64>>,
    /// When a queue on the way holds packets up (bufferbloat), and for how long at most.
    pub(crate) queues: Vec<(Range<f64>, f64)>,
    /// From when the way takes longer, and by how much.
    pub(crate) detours: Vec<(f64, f64)>,
    pub(crate) loss: f64,
    /// How likely a burst of losses begins.
    pub(crate) burst_loss: f64,
    pub(crate) duplication: f64,
    pub(crate) reordering: f64,
}

impl Network {
    pub(crate) fn of_jitter(jitter_s: f64) -> Self {
        Self { jitter_s, ..Self::default() }
    }

    /// Returns what arrives of the packets.
    pub(crate) fn carry(&self, sent: &[Packet], random: &mut Random) -> Vec<Packet> {
        let mut arrived = Vec::with_capacity(sent.len());
        let mut last_s = f64::MIN;
        let mut is_in_burst = false;
        // Reports draw from numbers of their own, so that a call is the same with them and without.
        let mut aside = Random::seeded(u64::try_from(sent.len()).unwrap());
        for packet in &reports::among(sent, &mut aside) {
            if packet.role == Role::Report {
                arrived.extend(self.carry_report(packet, last_s, &mut aside));
                continue;
            }
            is_in_burst = random.chance(if is_in_burst { BURST_GOES_ON } else { self.burst_loss });
            if self.is_out(packet.sent_s) || is_in_burst || random.chance(self.loss) {
                continue;
            }
            let mut arrival_s = self.arrival_s(packet.sent_s, random);
            if random.chance(self.reordering) {
                arrival_s += random.within(0.02..0.09);
            } else {
                arrival_s = arrival_s.max(last_s + BACK_TO_BACK_S);
                last_s = arrival_s;
            }
            arrived.push(Packet { arrival_s, ..*packet });
            if random.chance(self.duplication) {
                let again_s = arrival_s + random.within(0.0002..0.06);
                arrived.push(Packet { arrival_s: again_s, ..*packet });
            }
        }
        arrived
    }

    /// A report takes the same way behind what was sent before it, and is as easily lost.
    fn carry_report(&self, report: &Packet, last_s: f64, random: &mut Random) -> Option<Packet> {
        let arrival_s = self.arrival_s(report.sent_s, random).max(last_s);
        let is_lost = self.is_out(report.sent_s) || random.chance(self.loss);
        (!is_lost).then_some(Packet { arrival_s, ..*report })
    }

    fn is_out(&self, sent_s: f64) -> bool {
        self.outages.iter().any(|outage| outage.contains(&sent_s))
    }

    fn arrival_s(&self, sent_s: f64, random: &mut Random) -> f64 {
        let mut arrival_s = sent_s + self.delay_s(sent_s, random);
        for freeze in &self.freezes {
            if freeze.contains(&(sent_s + WAY_S)) {
                arrival_s = arrival_s.max(freeze.end + random.within(0.0..0.0005));
            }
        }
        arrival_s
    }

    fn delay_s(&self, sent_s: f64, random: &mut Random) -> f64 {
        let jitter_s = random.gamma(JITTER_SHAPE, self.jitter_s / JITTER_SHAPE);
        let detours =
            self.detours.iter().filter(|(from_s, _)| sent_s >= *from_s).map(|(_, longer_s)| longer_s);
        let queues = self.queues.iter().filter(|(when, _)| when.contains(&sent_s)).map(|(when, most_s)| {
            let filled = (sent_s - when.start).min(when.end - sent_s) / QUEUE_RAMP_S;
            most_s * filled.min(1.0)
        });
        WAY_S + jitter_s + detours.sum::<f64>() + queues.sum::<f64>()
    }
}
