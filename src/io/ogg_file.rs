//! An Ogg Opus file on disk in the making: pages written as they are finished, checksums known when the last one is.

use std::fs::File;
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use super::demand::Demand;
use super::scratch::Sink;
use crate::mux::ogg::{Layout, Pages, head, tags};
use crate::time::Samples48k;

/// Pages are summed and written to disk when there are so many bytes of them: a minute of a call.
const WRITE_BYTES: usize = 64 * 1024;
/// The encoder that the tags name.
pub(super) const ENCODER: &str = concat!("sidetape ", env!("CARGO_PKG_VERSION"));

/// An Ogg Opus file in the making.
pub(super) struct OggFile {
    file: Sink,
    pages: Pages,
    /// Samples that players drop at the beginning.
    pre_skip: u16,
    sha256: Sha256,
    crc32c: u32,
    bytes: u64,
    demand: Demand,
}

/// What has been written.
pub(super) struct Written {
    /// The file, not yet synced.
    pub(super) file: File,
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
    pub(super) crc32c: u32,
}

impl OggFile {
    /// Begins a stream in an empty file.
    pub(super) fn begin(
        file: impl Into<Sink>,
        layout: Layout,
        serial: u32,
        comments: &[(&str, String)],
        pre_skip: u16,
    ) -> Self {
        Self {
            file: file.into(),
            pages: Pages::new(serial, &head(layout, pre_skip), &tags(ENCODER, comments)),
            pre_skip,
            sha256: Sha256::new(),
            crc32c: 0,
            bytes: 0,
            demand: Demand::default(),
        }
    }

    /// The same, which takes no more packets when the demand for it is over.
    pub(super) fn wanted_by(self, demand: &Demand) -> Self {
        Self { demand: demand.clone(), ..self }
    }

    /// How many samples all packets together must have for the file to play so long: those that players drop, too.
    pub(super) fn samples(&self, duration: Samples48k) -> i64 {
        duration.0 + i64::from(self.pre_skip)
    }

    /// Where to append the bytes of the next packet, before [`OggFile::push`].
    pub(super) fn packet(&mut self) -> &mut Vec<u8> {
        self.pages.packet()
    }

    /// Adds the packet that was appended to [`OggFile::packet`], of `samples` at 48 kHz.
    pub(super) fn push(&mut self, samples: i64) -> io::Result<()> {
        self.demand.check()?;
        self.pages.push(u64::try_from(samples).unwrap_or(0));
        if self.pages.bytes().len() >= WRITE_BYTES { self.write_pages() } else { Ok(()) }
    }

    /// Ends the stream, which plays so long.
    pub(super) fn finish(mut self, duration: Samples48k) -> io::Result<Written> {
        self.pages.finish(u64::try_from(self.samples(duration)).unwrap_or(0));
        self.write_pages()?;
        let sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { file: self.file.into_file(), bytes: self.bytes, sha256, crc32c: self.crc32c })
    }

    fn write_pages(&mut self) -> io::Result<()> {
        let bytes = self.pages.bytes();
        self.sha256.update(bytes);
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.bytes += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.file.write_all(bytes)?;
        self.pages.clear();
        Ok(())
    }
}
