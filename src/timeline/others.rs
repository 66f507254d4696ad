//! Numbers that one source seems to have lost because another one, which spoke in the meantime, used them.
//!
//! A gateway may have one numbering for all that it sends. Then the numbers that are missing are those of the other source. Some
//! have counted the packets of the other source in the numbering of the first one (rtpengine 102): the other has numbers of
//! its own, and only how many they are tells.

use super::looks::Looks;
use super::unwrap::{AllEpochs, Unwrapped};
use super::{Rx, index};

/// A source is alone for the time being if so many packets in a row are its own.
const ALONE: usize = 10;
/// Other numbers explain no fewer missing ones: four seconds. A tone that is played while a second of a voice is lost has as
/// many, too.
const COUNTED_MIN: i64 = 200;
/// So many in a hundred may be missing besides.
const COUNTED_PERCENT: i64 = 1;

/// How many numbers seem to be missing from one source although another one used them.
pub(super) fn used_by_others(all: &AllEpochs, packets: &[Rx]) -> u64 {
    let mut looks = Looks::at(packets.len());
    let pairs = all.epochs.iter().flat_map(|epoch| all.packets_of(epoch).windows(2));
    pairs.map(|pair| used_between(pair, packets, &mut looks)).sum()
}

fn used_between(pair: &[Unwrapped], packets: &[Rx], looks: &mut Looks) -> u64 {
    let missing = pair[1].sequence - pair[0].sequence - 1;
    let (from, to) = (index(pair[0].rx), index(pair[1].rx));
    if missing <= 0 || to <= from + 1 {
        return 0;
    }
    let own = &packets[from];
    let is_own = |packet: &Rx| packet.ssrc == own.ssrc;
    // Others that speak at the same time anyway are no reason for a gap.
    if !packets[from.saturating_sub(ALONE)..from].iter().all(is_own) {
        return 0;
    }
    let between = packets[from + 1..to].iter().take_while(|_| looks.take());
    let (mut count, mut in_range) = (0, 0);
    for other in between.filter(|packet| !is_own(packet)) {
        count += 1;
        let on = i64::from(other.sequence.wrapping_sub(own.sequence));
        in_range += i64::from((1..=missing).contains(&on));
    }
    let is_alone_again = || packets[to..].iter().take(ALONE).all(is_own);
    let is_as_many = (count - missing).abs() * 100 <= missing * COUNTED_PERCENT;
    let is_counted = missing >= COUNTED_MIN && is_as_many && is_alone_again();
    // What the other one lost itself is counted as its own.
    let is_numbered = in_range * 10 >= missing * 9;
    let used = if is_numbered || is_counted { missing } else { in_range.min(missing) };
    u64::try_from(used).unwrap_or(0)
}
