//! Frames of a link layer in, UDP datagrams out.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice, UdpSlice};
use pcap_parser::Linktype;

use super::fragments::Fragments;
use super::{CaptureError, Datagram};
use crate::time::Wall;

/// Gathers the datagrams out of link-layer frames.
#[derive(Default)]
pub(super) struct Frames<'a> {
    datagrams: Vec<Datagram>,
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
        let (source, destination, payload) = match udp(&packet) {
            Some((source, destination, payload)) => (source, destination, payload.to_vec()),
            None => {
                let Some(put_together) = packet.net.as_ref().and_then(|net| self.fragments.add(net)) else {
                    return;
                };
                let Some(datagram) = udp_of(put_together) else { return };
                datagram
            }
        };
        self.datagrams.push(Datagram {
            at_us: at_us.clamp(0, Wall::MAX.0),
            source: source.to_string(),
            destination: destination.to_string(),
            payload,
        });
    }

    pub(super) fn finish(self) -> Result<Vec<Datagram>, CaptureError> {
        match self.unsupported_link {
            Some(link) if self.datagrams.is_empty() => Err(CaptureError::LinkType(link)),
            _ => Ok(self.datagrams),
        }
    }
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

/// Returns the source, destination and payload of a packet that is a UDP datagram and no fragment.
fn udp<'a>(packet: &LaxSlicedPacket<'a>) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
    // A fragment has no transport here, nor does what an ICMP error quotes.
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let source = SocketAddr::new(source, udp.source_port());
    Some((source, SocketAddr::new(destination, udp.destination_port()), udp.payload()))
}
