//! Frames of a link layer in, UDP datagrams out.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice, UdpHeader, UdpSlice};
use pcap_parser::Linktype;

use super::fragments::Fragments;
use super::{Capture, CaptureError, Datagram};
use crate::time::Wall;

/// Gathers the datagrams out of link-layer frames.
#[derive(Default)]
pub(super) struct Frames<'a> {
    capture: Capture,
    fragments: Fragments<'a>,
    unsupported_link: Option<i32>,
}

impl<'a> Frames<'a> {
    pub(super) fn add(&mut self, at_us: i64, link: Linktype, frame: &'a [u8]) {
        let ip = |packet| LaxSlicedPacket::from_ip(packet).ok();
        let packet = match link {
            Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(frame).ok(),
            Linktype::LINUX_SLL => after_ether_type(frame.get(14..), frame.get(16..)),
            Linktype::LINUX_SLL2 => after_ether_type(Some(frame), frame.get(20..)),
            Linktype::NULL | Linktype::LOOP => frame.get(4..).and_then(ip),
            // 12 and 14: what some systems write for RAW.
            Linktype::RAW | Linktype(12 | 14) | Linktype::IPV4 | Linktype::IPV6 => ip(frame),
            Linktype(other) => {
                self.unsupported_link = Some(other);
                return;
            }
        };
        let Some(packet) = packet else { return };
        let mut is_cut = packet.net.as_ref().is_some_and(is_cut_udp);
        let (source, destination, payload) = match udp(&packet) {
            Some((source, destination, udp)) => {
                let length = udp.payload().len().saturating_add(UdpHeader::LEN);
                is_cut |= usize::from(udp.length()) > length;
                (source, destination, udp.payload().to_vec())
            }
            None if is_cut => {
                self.note_cut(frame);
                self.capture.cut_frames = self.capture.cut_frames.saturating_add(1);
                return;
            }
            None => {
                let Some(put_together) = packet.net.as_ref().and_then(|net| self.fragments.add(net)) else {
                    return;
                };
                let Some(datagram) = udp_of(put_together) else { return };
                datagram
            }
        };
        if is_cut {
            self.note_cut(frame);
        }
        self.capture.datagrams.push(Datagram {
            at_us: at_us.clamp(0, Wall::MAX.0),
            source: source.to_string(),
            destination: destination.to_string(),
            payload,
            is_cut,
        });
    }

    fn note_cut(&mut self, frame: &[u8]) {
        self.capture.kept_bytes = self.capture.kept_bytes.max(frame.len());
    }

    /// What the frames made of a capture, of whose end so much could not be read.
    pub(super) fn finish(self, torn_bytes: usize) -> Result<Capture, CaptureError> {
        match self.unsupported_link {
            Some(link) if self.capture.datagrams.is_empty() => Err(CaptureError::LinkType(link)),
            _ => Ok(Capture { torn_bytes, ..self.capture }),
        }
    }
}

/// Whether a packet carries UDP and is shorter than it says.
fn is_cut_udp(net: &LaxNetSlice<'_>) -> bool {
    let payload = match net {
        LaxNetSlice::Ipv4(ip) => ip.payload(),
        LaxNetSlice::Ipv6(ip) => ip.payload(),
        LaxNetSlice::Arp(_) => return false,
    };
    payload.incomplete && payload.ip_number == IpNumber::UDP
}

/// Reads the datagram that fragments made.
fn udp_of(
    (source, destination, whole): (IpAddr, IpAddr, Vec<u8>),
) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
    let udp = UdpSlice::from_slice_lax(&whole).ok()?;
    let (from, to) = (udp.source_port(), udp.destination_port());
    Some((SocketAddr::new(source, from), SocketAddr::new(destination, to), udp.payload().to_vec()))
}

/// Reads what follows the two bytes of an EtherType. Lengths are taken laxly, since captures may cut packets off.
fn after_ether_type<'a>(ether_type: Option<&[u8]>, payload: Option<&'a [u8]>) -> Option<LaxSlicedPacket<'a>> {
    let ether_type = EtherType(u16::from_be_bytes(*ether_type?.first_chunk()?));
    Some(LaxSlicedPacket::from_ether_type(ether_type, payload?))
}

/// Returns the source, the destination and the whole of a packet that is a UDP datagram and no fragment.
fn udp<'a>(packet: &LaxSlicedPacket<'a>) -> Option<(SocketAddr, SocketAddr, UdpSlice<'a>)> {
    // A fragment has no transport here, nor does what an ICMP error quotes.
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let source = SocketAddr::new(source, udp.source_port());
    Some((source, SocketAddr::new(destination, udp.destination_port()), udp.clone()))
}
