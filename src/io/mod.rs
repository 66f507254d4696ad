//! The shell's hands: sockets, disk, clock and threads. What is decided is decided by the core.

pub mod awaited;
pub mod backup;
pub mod capture;
pub mod clock;
pub mod finish;
pub mod gate;
pub mod http;
pub mod ingest;
pub mod listen;
pub mod live;
pub mod log;
mod ogg_file;
pub mod outbox;
mod payloads;
pub mod recover;
pub mod render;
pub mod rtp_ports;
pub mod scrape;
mod slot;
mod sources;
pub mod spool_dir;
pub mod spool_writer;
pub mod stop;
pub mod store;
pub mod stretch;
pub mod udp;
pub mod unix;
