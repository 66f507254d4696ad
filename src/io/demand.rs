//! Whether somebody still waits for what is being made: work for a request ends with the request.
//!
//! What makes it asks here every now and then, in small enough steps that it stops soon, and gives up with an error
//! that nobody reads.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The demand for something that takes a while to make.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    is_over: Arc<AtomicBool>,
}

/// Who waits for it. When this is dropped, the demand is over.
#[derive(Debug, Default)]
pub struct Asker {
    demand: Demand,
}

impl Asker {
    /// The demand that lasts as long as this.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.demand.clone()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.demand.is_over.store(true, Ordering::Relaxed);
    }
}

impl Demand {
    /// Fails when nobody waits any more.
    ///
    /// # Errors
    /// Then, and only then.
    pub fn check(&self) -> io::Result<()> {
        match self.is_over.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody waits for it any more")),
        }
    }

    /// Reads `input` for as long as somebody waits.
    pub fn reader<R: Read>(&self, input: R) -> impl Read + use<R> {
        Wanted { input, demand: self.clone() }
    }
}

struct Wanted<R> {
    input: R,
    demand: Demand,
}

impl<R: Read> Read for Wanted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.demand.check()?;
        self.input.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_over_when_its_asker_has_gone() {
        let asker = Asker::default();
        let demand = asker.demand();
        let mut input = demand.reader(&b"some bytes"[..]);
        let mut out = [0; 4];
        assert_eq!(input.read(&mut out).unwrap(), 4);
        assert!(demand.check().is_ok());
        drop(asker);
        assert!(demand.check().is_err());
        assert_eq!(input.read(&mut out).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(Demand::default().check().is_ok(), "one without an asker lasts");
    }
}
