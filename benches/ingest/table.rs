//! The table: one line for each goal, with what it was measured against in the same run.

use super::machine::{day_and_processor, said};
use super::peer;

/// One line.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) against: String,
    pub(crate) ratio: String,
    pub(crate) goal: &'static str,
    /// `None` where there is no goal.
    pub(crate) is_met: Option<bool>,
}

/// Prints when and where, and the head of the table.
pub(crate) fn print_head() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{}, Linux {}, spool on {}, load of others {}\n",
        day_and_processor(),
        said("uname", &["-r"]).unwrap_or_default(),
        peer::file_system(&peer::parent()),
        load.split(' ').next().unwrap_or_default(),
    );
    println!("| what | measured | against | ratio | goal | |\n| --- | --- | --- | --- | --- | --- |");
}

/// Prints a line.
pub(crate) fn print_row(row: &Row) {
    let Row { what, measured, against, ratio, goal, is_met } = row;
    let verdict = match is_met {
        Some(true) => "met",
        Some(false) => "not met",
        None => "",
    };
    println!("| {what} | {measured} | {against} | {ratio} | {goal} | {verdict} |");
}

/// A number of thousands with commas, as people write it.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The smallest that so many percent are not above.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}
