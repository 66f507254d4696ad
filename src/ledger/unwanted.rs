//! The numbers of a channel's packets across the times in which its call is not wanted.
//!
//! The spool has no packets of these times, and what lies between the last number before and the first one behind is no loss:
//! the daemon received it and kept nothing. All of it is told to the timeline as one packet that was withheld, and the numbers
//! behind it are moved up to that. Memory: one such time, the last.

/// How far a packet may be overtaken, or a copy reach back, and still be told from one behind.
const REACH: u16 = 512;

/// The numbers as they came, and as they are told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbering {
    /// The source of the last packet, and its highest number.
    top: Option<(u32, u16)>,
    /// Whether a time that was not wanted has ended since.
    is_behind: bool,
    /// How many numbers are not told.
    left_out: u16,
    last: Option<Joint>,
}

/// Where the numbers of a source go on behind a time that was not wanted.
#[derive(Clone, Copy, Debug)]
struct Joint {
    ssrc: u32,
    before: u16,
    behind: u16,
    left_out_before: u16,
    /// Packets that have come since.
    packets: u16,
}

impl Numbering {
    /// Notes that a time in which nothing was wanted has ended.
    pub(super) fn end_unwanted(&mut self) {
        self.is_behind = true;
    }

    /// Notes a packet. Where numbers of a time that was not wanted lie in front of it, returns the one that stands for them.
    pub(super) fn note(&mut self, ssrc: u32, sequence: u16) -> Option<u16> {
        let top = self.top.filter(|top| top.0 == ssrc).map(|top| top.1);
        if top.is_some_and(|top| top.wrapping_sub(sequence) < REACH) {
            return None;
        }
        self.top = Some((ssrc, sequence));
        let mut last = self.last.take();
        if let Some(joint) = &mut last {
            joint.packets += 1;
        }
        self.last = last.filter(|joint| joint.packets < REACH);
        let is_behind = std::mem::take(&mut self.is_behind);
        let before = top.filter(|_| is_behind)?;
        let missing = sequence.wrapping_sub(before).wrapping_sub(1);
        let left_out_before = self.left_out;
        self.left_out = left_out_before.wrapping_add(missing.checked_sub(1)?);
        self.last = Some(Joint { ssrc, before, behind: sequence, left_out_before, packets: 0 });
        Some(before.wrapping_add(1).wrapping_sub(left_out_before))
    }

    /// The number that a packet has for the timeline. `None` if it is of a time that was not wanted.
    pub(super) fn told(&self, ssrc: u32, sequence: u16) -> Option<u16> {
        let joint = self.last.filter(|joint| joint.ssrc == ssrc);
        match joint {
            Some(joint) if joint.before.wrapping_sub(sequence) < REACH => {
                Some(sequence.wrapping_sub(joint.left_out_before))
            }
            Some(joint) if sequence.wrapping_sub(joint.before) < joint.behind.wrapping_sub(joint.before) => {
                None
            }
            _ => Some(self.all_behind(sequence)),
        }
    }

    /// The number of a packet that was wanted, whatever it is.
    pub(super) fn all_behind(&self, sequence: u16) -> u16 {
        sequence.wrapping_sub(self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LONGEST, enter, ledger};
    use super::*;
    use crate::timeline::RxKind;

    const SSRC: u32 = 5;

    #[test]
    fn numbers_close_up_behind_each_time_that_was_not_wanted_and_a_loss_stays_one() {
        let mut numbering = Numbering::default();
        let mut told = Vec::new();
        // The call is not wanted for 100 numbers, with one lost before, and again for more than a half of all.
        for sequence in [65_530, 65_531, 65_533, 98, 99, 40_000, 40_001] {
            if [98, 40_000].contains(&sequence) {
                numbering.end_unwanted();
            }
            told.extend(numbering.note(SSRC, sequence));
            told.extend(numbering.told(SSRC, sequence));
        }
        assert_eq!(told, [65_530, 65_531, 65_533, 65_534, 65_535, 0, 1, 2, 3]);
    }

    #[test]
    fn what_was_overtaken_has_its_number_and_what_was_not_wanted_has_none() {
        let mut numbering = Numbering::default();
        numbering.note(SSRC, 10);
        numbering.end_unwanted();
        assert_eq!(numbering.note(SSRC, 9), None, "from before");
        assert_eq!(numbering.note(SSRC, 60), Some(11));
        let told = [9, 10, 11, 59, 60, 61].map(|sequence| numbering.told(SSRC, sequence));
        assert_eq!(told, [Some(9), Some(10), None, None, Some(12), Some(13)]);
        assert_eq!(numbering.told(SSRC + 1, 30), Some(30u16.wrapping_sub(48)), "another source");
        for sequence in 61..=60 + REACH {
            assert_eq!(numbering.note(SSRC, sequence), None);
        }
        assert_eq!(numbering.told(SSRC, 11), Some(11u16.wrapping_sub(48)), "long ago");
    }

    #[test]
    fn a_new_source_and_a_call_that_was_not_wanted_from_the_beginning_have_no_gap() {
        let mut numbering = Numbering::default();
        numbering.end_unwanted();
        assert_eq!(numbering.note(SSRC, 700), None);
        numbering.end_unwanted();
        assert_eq!(numbering.note(SSRC + 1, 9000), None);
        assert_eq!(numbering.note(SSRC + 1, 9005), None, "a loss");
        assert_eq!(numbering.told(SSRC + 1, 9005), Some(9005));
    }

    #[test]
    fn the_ledger_has_one_withheld_packet_for_a_time_that_was_not_wanted() {
        let mut ledger = ledger();
        let rtp = |sequence: u8| {
            let at = u32::from(sequence) * 960;
            super::super::tests::rtp_at(111, sequence, at, &[0xf8, 0xff, 0xfe])
        };
        enter(&mut ledger, 1, 600, None, &rtp(1));
        enter(&mut ledger, 3, 700, None, br#"{"record":false}"#);
        enter(&mut ledger, 3, 900_000, None, br#"{"record":true}"#);
        enter(&mut ledger, 1, 900_100, None, &rtp(45));
        enter(&mut ledger, 1, 920_000, None, &rtp(47));
        ledger.close(LONGEST);
        let caller = &ledger.channels[0];
        let told: Vec<_> = caller.rx.iter().map(|rx| (rx.sequence, rx.kind)).collect();
        let (audio, withheld) = (RxKind::Audio, RxKind::Withheld);
        assert_eq!(told, [(1, audio), (2, withheld), (3, audio), (5, audio)]);
        assert_eq!((caller.packets, caller.payloads.len()), (3, 4));
    }
}
