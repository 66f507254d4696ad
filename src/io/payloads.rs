//! Payloads out of a file: read at places that lie close together, a window of the file at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is read of a file at once where a payload is wanted. The packets of a channel lie close together.
const WINDOW_BYTES: usize = 64 * 1024;

/// Where a payload stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u16,
    /// Whether it stands in the file of packets that were encoded, not in the spool.
    pub(crate) is_encoded: bool,
}

/// A file read at places that lie close together.
pub(crate) struct Window {
    file: File,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::on(File::open(path)?))
    }

    pub(crate) fn on(file: File) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    /// Appends the payload at a place to `out`.
    pub(crate) fn read(&mut self, place: Place, out: &mut Vec<u8>) -> io::Result<()> {
        let (offset, length) = (place.offset, usize::from(place.length));
        if self.slice(offset, length).is_none() {
            self.bytes.resize(WINDOW_BYTES.max(length), 0);
            let mut filled = 0;
            while filled < self.bytes.len() {
                let at = offset + u64::try_from(filled).map_err(io::Error::other)?;
                match self.file.read_at(&mut self.bytes[filled..], at)? {
                    0 => break,
                    more => filled += more,
                }
            }
            self.bytes.truncate(filled);
            self.start = offset;
        }
        let bytes = self.slice(offset, length).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn slice(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(length)?)
    }
}
