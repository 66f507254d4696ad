//! An Ogg Opus file on disk in the making: pages written as they are finished, checksums known when the last one is.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use sha2::{Digest, Sha256};

use crate::mux::ogg::{Layout, Pages, head, tags};
use crate::time::Samples48k;

/// Written to disk at once.
const WRITE_BYTES: usize = 64 * 1024;
/// The encoder that the tags name.
pub(super) const ENCODER: &str = concat!("sidetape ", env!("CARGO_PKG_VERSION"));

/// What of a timeline a file holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Samples that players drop at the beginning.
    pub(super) pre_skip: u16,
    /// How long the file plays.
    pub(super) duration: Samples48k,
}

impl Extent {
    /// Samples in all packets, the dropped ones among them.
    pub(super) fn samples(self) -> i64 {
        self.duration.0 + i64::from(self.pre_skip)
    }
}

/// An Ogg Opus file in the making.
pub(super) struct OggFile {
    out: BufWriter<File>,
    pages: Pages,
    extent: Extent,
    sha256: Sha256,
    crc32c: u32,
    bytes: u64,
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
        file: File,
        layout: Layout,
        serial: u32,
        comments: &[(&str, String)],
        extent: Extent,
    ) -> Self {
        Self {
            out: BufWriter::with_capacity(WRITE_BYTES, file),
            pages: Pages::new(serial, head(layout, extent.pre_skip), tags(ENCODER, comments)),
            extent,
            sha256: Sha256::new(),
            crc32c: 0,
            bytes: 0,
        }
    }

    /// What the file is to hold.
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Adds a packet of `samples` at 48 kHz.
    pub(super) fn push(&mut self, packet: Vec<u8>, samples: i64) -> io::Result<()> {
        self.pages.push(packet, u64::try_from(samples).unwrap_or(0));
        self.write_pages()
    }

    /// Ends the stream where its extent ends.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        self.pages.finish(u64::try_from(self.extent.samples()).unwrap_or(0));
        self.write_pages()?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { file, bytes: self.bytes, sha256, crc32c: self.crc32c })
    }

    fn write_pages(&mut self) -> io::Result<()> {
        let bytes = self.pages.take_bytes();
        self.sha256.update(&bytes);
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        self.bytes += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.out.write_all(&bytes)
    }
}
