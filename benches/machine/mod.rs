//! When and where something was measured.

use std::process::Command;

/// The day, and the processor: `2026-11-21, 2 cores of AMD EPYC`.
pub(crate) fn day_and_processor() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let day = said("date", &["+%Y-%m-%d"]).unwrap_or_default();
    format!("{day}, {cores} cores of {}", model.trim_start_matches(['\t', ':', ' ']))
}

/// The first line that a program says; nothing where it is not installed.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}
