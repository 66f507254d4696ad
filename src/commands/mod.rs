//! What the program does when it is called: one file for each command.

pub mod check;
pub mod demo;
pub mod inspect;
pub mod load;
pub mod recover;
pub mod replay;
pub mod serve;

use crate::config::{Config, Faults, Settings, resolve};
use crate::io::log;

/// Checks the settings and sets up the log: how every command that needs a configuration begins.
///
/// # Errors
/// [`Faults`] with all that is wrong.
pub fn configure(settings: &Settings) -> Result<Config, Faults> {
    let config = resolve(settings).map_err(|mut faults| {
        // The filter is the one value that only the log can judge; its fault belongs to the others.
        faults.0.extend(settings.log.iter().filter_map(|text| log::parse_filter(text).err()));
        faults
    })?;
    log::set_up(&config).map_err(|fault| Faults(vec![fault]))?;
    Ok(config)
}
