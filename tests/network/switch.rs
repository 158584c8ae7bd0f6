//! The learning switch behind a link.

use std::collections::BTreeMap;

use tapvs::addr::MacAddr;

/// What is plugged into a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Router,
    Station(usize),
    /// Another switch.
    Cable,
}

#[derive(Debug, Default)]
pub(crate) struct Switch {
    learned: BTreeMap<MacAddr, Port>,
}

impl Switch {
    /// Those of `ports` by which a frame that came in by `from` leaves.
    pub(crate) fn pass(&mut self, from: Port, frame: &[u8], ports: &[Port]) -> Vec<Port> {
        let (to, source) = (MacAddr::from_slice(frame), MacAddr::from_slice(&frame[6..]));
        if !source.is_multicast() {
            self.learned.insert(source, from);
        }
        match self.learned.get(&to).filter(|port| !to.is_multicast() && ports.contains(port)) {
            Some(port) if *port == from => Vec::new(),
            Some(port) => vec![*port],
            None => ports.iter().copied().filter(|port| *port != from).collect(),
        }
    }

    /// A port goes down: what was behind it is looked for again.
    pub(crate) fn forget(&mut self, port: Port) {
        self.learned.retain(|_, learned| *learned != port);
    }
}
