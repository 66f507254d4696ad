//! A search for calls that cost more: a pattern of packets, said over and over, is changed by chance, and kept where finishing
//! takes longer for each byte.
//!
//! What is encoded costs by the second of sound, whatever it is, so a pattern that leads to that is no find.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sidetape::id::Channel;

use super::cost::finish;
use super::hostile::{Step, chance, of_steps};

/// The longest recording: longer than an ordinary call of so many packets, and no longer. A few packets may be hours apart,
/// which costs by the hour, whatever there is in it.
const LONGEST: Duration = Duration::from_secs(120);
/// Packets of a call that is tried, and of one that is confirmed.
const PACKETS: usize = 12_000;
/// Patterns that are changed side by side: one alone would stay where it can only get worse.
const PATTERNS: usize = 12;
const STEPS_MAX: usize = 24;

struct Chance(usize);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 += 1;
        (chance(self.0) >> 8) % bound
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// A step of a number or a time: mostly what goes on, else near it, at a threshold or anywhere.
    fn step(&mut self, usual: i64, thresholds: &[i64]) -> i64 {
        match self.below(8) {
            0..4 => usual,
            4 => usual * self.of(&[-2, -1, 0, 2, 3]),
            5 => self.of(thresholds) * self.of(&[-1, 1]) + self.of(&[-1, 0, 1]) * usual,
            6 => usual + i64::try_from(self.below(2001)).unwrap() - 1000,
            _ => i64::try_from(self.below(1 << 32)).unwrap() - (1 << 31),
        }
    }

    fn new_step(&mut self) -> Step {
        let toc = self.of(&[0xe0, 0xe8, 0xf0, 0xf8, 0x78, 0x48, 0x58, 0x08, 0x40, 0x50, 0x60]);
        Step {
            channel: if self.below(4) == 0 { Channel::Ai } else { Channel::Caller },
            payload_type: self.of(&[111, 111, 111, 111, 111, 111, 101, 13, 100, 112]),
            toc,
            frames: self.of(&[1, 1, 1, 2, 3, 6, 12, 24, 48]),
            sequence: self.step(1, &[3, 100, 300, 512, 3000, 32_768]),
            timestamp: self.step(960, &[120, 1440, 2880, 14_400, 24_000, 144_000, 480_000, 1 << 31]),
            arrival_us: self.step(20_000, &[0, 60_000, 100_000, 250_000, 500_000, 1_000_000, 3_000_000]),
            gateway_us: if self.below(3) == 0 {
                Some(self.step(0, &[30_000, 60_000, 2_000_000, 60_000_000]))
            } else {
                None
            },
            ssrc: self.of(&[0, 0, 0, 0, 1, 2, 1000]),
            control: self.of(&[0, 0, 0, 0, 0, 0, 0, 6, 7, 9, 10, 8]),
        }
    }

    fn change(&mut self, pattern: &mut Vec<Step>) {
        for _ in 0..=self.below(3) {
            let at = self.below(pattern.len());
            match self.below(6) {
                0 if pattern.len() < STEPS_MAX => pattern.insert(at, self.new_step()),
                1 if pattern.len() > 1 => drop(pattern.remove(at)),
                2 if pattern.len() < STEPS_MAX => pattern.insert(at, pattern[at]),
                3 => pattern[at] = self.new_step(),
                _ => {
                    let (old, new) = (&mut pattern[at], self.new_step());
                    match self.below(9) {
                        0 => old.timestamp = new.timestamp,
                        1 => old.sequence = new.sequence,
                        2 => old.arrival_us = new.arrival_us,
                        3 => old.gateway_us = new.gateway_us,
                        4 => (old.toc, old.frames) = (new.toc, new.frames),
                        5 => old.payload_type = new.payload_type,
                        6 => old.ssrc = new.ssrc,
                        7 => old.control = new.control,
                        _ => old.channel = new.channel,
                    }
                }
            }
        }
    }
}

/// Searches for so long, and prints each find that is worse than all before.
pub(crate) fn search(time: Duration, seed: usize) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("call.spool");
    let mut chance = Chance(seed << 32);
    let cost = |pattern: &[Step], packets: usize| -> Option<f64> {
        let file = of_steps(pattern, packets);
        std::fs::write(&path, &file).unwrap();
        let before = clock_gettime(ClockId::ThreadCPUTime);
        let rendered = finish(&path, LONGEST);
        let after = clock_gettime(ClockId::ThreadCPUTime);
        let ns = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
        let channels = [&rendered.manifest.channels.caller, &rendered.manifest.channels.ai];
        (!channels.iter().any(|channel| channel.transcoded)).then_some(ns as f64 / packets as f64)
    };
    let usual = vec![Step::USUAL];
    let ordinary = (0..5).filter_map(|_| cost(&usual, PACKETS)).fold(f64::INFINITY, f64::min);
    println!("an ordinary packet: {ordinary:.0} ns");
    let mut patterns: Vec<(f64, Vec<Step>)> = vec![(ordinary, usual); PATTERNS];
    let (begun, mut tried, mut worst) = (Instant::now(), 0, ordinary);
    while begun.elapsed() < time {
        let at = chance.below(PATTERNS);
        let mut pattern = patterns[at].1.clone();
        chance.change(&mut pattern);
        tried += 1;
        // What is encoded shows soon, mostly.
        if cost(&pattern, PACKETS / 40).is_none() {
            continue;
        }
        let Some(first) = cost(&pattern, PACKETS) else { continue };
        if first <= patterns[at].0 {
            continue;
        }
        // What only happened while something else had the processor does not count.
        let again = (0..3).filter_map(|_| cost(&pattern, PACKETS)).fold(first, f64::min);
        if again <= patterns[at].0 {
            continue;
        }
        if again > worst * 1.05 {
            worst = again;
            let long = cost(&pattern, PACKETS * 16).unwrap_or_default();
            println!(
                "{:>6} s, {tried} tried: {:.1} times an ordinary one, {:.1} in a call 16 times as long: {pattern:?}",
                begun.elapsed().as_secs(),
                again / ordinary,
                long / ordinary
            );
        }
        patterns[at] = (again, pattern);
        // Now and then the worst takes the place of the mildest.
        if chance.below(50) == 0 {
            patterns.sort_by(|one, other| one.0.total_cmp(&other.0));
            patterns[0] = patterns[PATTERNS - 1].clone();
        }
    }
    println!("{tried} tried, the worst is {:.1} times an ordinary one", worst / ordinary);
}
