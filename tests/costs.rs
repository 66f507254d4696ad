//! What calls cost that were made to cost much: processor time goes by their bytes, and memory stays within its bound.
//!
//! `cargo bench --bench hostile` prints the figures, and looks for worse calls. Here ratios are generous: what grows with the
//! square of a call's length is ten times above them.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "parts of calls that are made up"
)]

#[path = "rig/cost.rs"]
mod cost;
#[path = "rig/hostile.rs"]
#[allow(dead_code, reason = "the patterns of the search for worse ones")]
mod hostile;

use cost::{cost_of, finish_as_child};
use hostile::{KINDS, Kind};

/// Packets of the shorter call: what is quadratic in it takes longer than what is not.
const PACKETS: usize = 8000;
/// How often as many the longer one has.
const TIMES: usize = 4;
/// How much longer it may take: a cache that it no longer fits into, and another program on the same machine.
const GROWTH_MAX: f64 = 2.5 * TIMES as f64;
/// What a packet may cost beside an ordinary one: ten times, and as much again for a build without optimisation, where ours is
/// slowed down more than what libraries do.
const RATIO_MAX: f64 = 20.0;
/// Below this, what it takes to begin is most of it.
const LEAST_S: f64 = 0.05;

/// Not a test: what a process does that was started to finish one call.
#[test]
fn finish_one() {
    finish_as_child();
}

/// Why a kind costs too much, if it does: judged again, because others on the machine only add.
fn judge(kind: &Kind, is_too_much: impl Fn(&Kind) -> Option<String>) -> Option<String> {
    (0..3).map(|_| is_too_much(kind)).find(Option::is_none).unwrap_or_else(|| is_too_much(kind))
}

#[test]
fn finishing_takes_time_and_memory_by_the_length_of_a_call_whatever_is_in_it() {
    let usual = cost_of(&(KINDS[0].make)(PACKETS * TIMES)).cpu_s.max(LEAST_S);
    let is_too_much = |kind: &Kind| {
        let (short, long) = ((kind.make)(PACKETS), (kind.make)(PACKETS * TIMES));
        let (small, large) = (cost_of(&short), cost_of(&long));
        let growth = large.cpu_s / small.cpu_s.max(LEAST_S);
        let ratio = large.cpu_s / usual;
        let allowed_mib = 64.0 + 1.5 * long.len() as f64 / f64::from(1 << 20);
        let is_so = growth > GROWTH_MAX || ratio > RATIO_MAX || large.peak_mib > allowed_mib;
        is_so.then(|| format!("{}: {small:?}, {large:?}, ratio {ratio:.1}, {allowed_mib:.0} MiB", kind.name))
    };
    let kinds = KINDS.iter().filter(|kind| kind.share == 1);
    let wrong: Vec<String> = kinds.filter_map(|kind| judge(kind, is_too_much)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_encoded_takes_time_by_its_length_as_a_call_of_g711_does() {
    let packets = 150;
    let is_too_much = |kind: &Kind| {
        let (cost, usual) = (cost_of(&(kind.make)(packets)), cost_of(&(kind.ordinary)(packets)));
        let ratio = cost.cpu_s / usual.cpu_s.max(LEAST_S);
        (ratio > 10.0).then(|| format!("{}: {cost:?}, {usual:?}", kind.name))
    };
    let kinds = KINDS.iter().filter(|kind| kind.share > 1);
    let wrong: Vec<String> = kinds.filter_map(|kind| judge(kind, is_too_much)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
