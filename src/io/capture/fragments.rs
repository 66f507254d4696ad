//! Fragments of IP datagrams that carry UDP in, whole payloads out.
//!
//! Pieces are kept as parts of the file that they are in, so that no file makes memory grow beyond its own size; a datagram
//! has [`PIECES_MAX`] of them at most, and of [`PENDING_MAX`] unfinished ones the oldest is given up. One whose pieces
//! overlap is left out: RFC 5722 says so, and nobody who wants to be heard sends it.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use etherparse::{IpNumber, Ipv6ExtensionSlice, LaxNetSlice};

/// What 64 KiB make in the smallest pieces that there are links for: 1,280 bytes, and some to spare.
const PIECES_MAX: usize = 128;
/// Unfinished datagrams.
const PENDING_MAX: usize = 1024;

/// Which datagram a fragment belongs to: between whom, and its number.
type Key = (IpAddr, IpAddr, u32);

/// Datagrams of which not all has come.
#[derive(Default)]
pub(super) struct Fragments<'a> {
    pending: HashMap<Key, Vec<Piece<'a>>>,
    /// In the order of their first pieces.
    order: VecDeque<Key>,
}

/// Part of a datagram.
#[derive(Clone, Copy)]
struct Piece<'a> {
    offset: usize,
    is_last: bool,
    bytes: &'a [u8],
}

impl<'a> Fragments<'a> {
    /// Takes a packet. Returns the payload of the datagram, and who sent it to whom, if the packet is a fragment and the last
    /// that was missing.
    pub(super) fn add(&mut self, net: &LaxNetSlice<'a>) -> Option<(IpAddr, IpAddr, Vec<u8>)> {
        let (key, piece) = piece(net)?;
        if !self.pending.contains_key(&key) {
            if self.order.len() >= PENDING_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.pending.remove(&oldest);
            }
            self.order.push_back(key);
        }
        let pieces = self.pending.entry(key).or_default();
        // A copy, as a capture on two interfaces has, or a new datagram by a number that was used before.
        match pieces.iter().position(|other| other.offset == piece.offset) {
            Some(at) if pieces.get(at).is_some_and(|other| other.bytes == piece.bytes) => return None,
            Some(_) => pieces.clear(),
            None => {}
        }
        if pieces.len() < PIECES_MAX {
            pieces.push(piece);
        }
        let whole = whole(pieces)?;
        self.pending.remove(&key);
        self.order.retain(|other| *other != key);
        let (source, destination, ..) = key;
        Some((source, destination, whole))
    }
}

/// Reads which fragment a packet is, if it is one.
fn piece<'a>(net: &LaxNetSlice<'a>) -> Option<(Key, Piece<'a>)> {
    let (source, destination, number, offset, is_last, payload) = match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            let is_last = !header.more_fragments();
            let (number, offset) = (u32::from(header.identification()), header.fragments_offset());
            (source.into(), destination.into(), number, offset, is_last, ip.payload())
        }
        LaxNetSlice::Ipv6(ip) => {
            let fragment = ip.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment),
                _ => None,
            })?;
            let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
            let (number, offset) = (fragment.identification(), fragment.fragment_offset());
            (source.into(), destination.into(), number, offset, !fragment.more_fragments(), ip.payload())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    if payload.ip_number != IpNumber::UDP {
        return None;
    }
    // What the capture kept only the start of cannot be put together.
    if !payload.fragmented || payload.incomplete {
        return None;
    }
    let piece =
        Piece { offset: usize::from(offset.value()).saturating_mul(8), is_last, bytes: payload.payload };
    Some(((source, destination, number), piece))
}

/// Puts the pieces together, if they are all there.
fn whole(pieces: &mut [Piece<'_>]) -> Option<Vec<u8>> {
    let end = pieces.iter().find(|piece| piece.is_last)?;
    let length = end.offset.saturating_add(end.bytes.len());
    let sum = pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.bytes.len()));
    if sum != length {
        return None;
    }
    pieces.sort_unstable_by_key(|piece| piece.offset);
    let mut whole = Vec::with_capacity(length);
    for piece in pieces {
        if piece.offset != whole.len() {
            return None;
        }
        whole.extend_from_slice(piece.bytes);
    }
    Some(whole)
}
