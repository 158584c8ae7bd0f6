//! Why each packet went where it went, for whoever asks: `tapvs trace` and `tapvs capture`.
//!
//! Owns the filter, the records that the loop makes of packets that pass it, and their words. Looks
//! at frames before and after the dataplane and changes nothing; what it keeps goes into buffers of
//! fixed size that travel between the loop and the reader, and what finds no room there is counted.
//! Without a tracer it costs the loop one branch per frame.

mod aim;
mod filter;
mod packet;
mod record;
mod reel;
mod tracers;
mod words;

pub use aim::Aim;
pub use filter::{Filter, FilterError, Protocol, ServerIs};
pub use record::{Exit, FlowSeen, Kind, Outcome, Record};
pub use reel::{Batch, Reader, Tracer, reel};
pub use tracers::{MOST, Scene, Tracers};
pub use words::{Described, words};
