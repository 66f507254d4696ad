//! Payloads out of a file: read at places that lie close together, a window of the file at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is read of a file at once where a payload is wanted. The packets of a channel lie close together.
const WINDOW_BYTES: usize = 64 * 1024;
/// Windows kept: two for each channel, since a packet may lie in front of one that was asked for before it. Where both
/// channels were received in step, one finds its packets in what was read for the other.
const WINDOWS: usize = 4;

/// Where a payload stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u16,
    /// Whether it stands in the file of packets that were encoded, not in the spool.
    pub(crate) is_encoded: bool,
}

/// A file read at places that lie close together.
pub(crate) struct Windows {
    file: File,
    windows: [Window; WINDOWS],
    /// The window that was read from last, and the one that was filled first: it is filled next.
    last: usize,
    oldest: usize,
}

#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Windows {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::on(File::open(path)?))
    }

    pub(crate) fn on(file: File) -> Self {
        Self { file, windows: Default::default(), last: 0, oldest: 0 }
    }

    /// Appends the payload at a place to `out`.
    pub(crate) fn read(&mut self, place: Place, out: &mut Vec<u8>) -> io::Result<()> {
        let has_it = |window: &Window| window.slice(place).is_some();
        if !has_it(&self.windows[self.last]) {
            self.last = match self.windows.iter().position(has_it) {
                Some(found) => found,
                None => {
                    let filled = self.oldest;
                    self.windows[filled].fill(&self.file, place)?;
                    self.oldest = (filled + 1) % WINDOWS;
                    filled
                }
            };
        }
        let bytes = self.windows[self.last].slice(place).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.extend_from_slice(bytes);
        Ok(())
    }
}

impl Window {
    /// Reads what begins at a place.
    fn fill(&mut self, file: &File, place: Place) -> io::Result<()> {
        self.start = place.offset;
        self.bytes.resize(WINDOW_BYTES.max(usize::from(place.length)), 0);
        let mut filled = 0;
        while filled < self.bytes.len() {
            let at = place.offset + u64::try_from(filled).map_err(io::Error::other)?;
            match file.read_at(&mut self.bytes[filled..], at)? {
                0 => break,
                more => filled += more,
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    fn slice(&self, place: Place) -> Option<&[u8]> {
        let from = usize::try_from(place.offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(usize::from(place.length))?)
    }
}
