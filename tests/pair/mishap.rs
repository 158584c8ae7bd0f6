//! What goes wrong with a pair and the network around it, and how it is mended.

use tapvs::addr::Role;
use tapvs::time::{Duration, Instant};

use crate::net::{Faults, Net, Planned};
use crate::node::{ADVERTS, Shape};

const LONGEST_PAUSE: usize = 10_000;
const LONGEST_FLAP: usize = 2_000;

impl Net {
    /// Something goes wrong, or is mended.
    pub(crate) fn mishap(&mut self) {
        let (number, segment) = (self.random.below(2), self.random.below(2));
        let what = self.random.below(15);
        self.note(format_args!("mishap {what} at router {number}, segment {segment}"));
        match what {
            0 => self.faults.loss = *self.random.pick(&[5, 30, 90]),
            1 => self.faults = Faults::default(),
            // One way only.
            2 => self.cut[segment][number][1 - number] = true,
            3 => {
                for other in [1 - number, 2] {
                    self.cut[segment][number][other] = true;
                    self.cut[segment][other][number] = true;
                }
            }
            4 => self.cut[segment] = [[false; 3]; 3],
            5 => {
                let pause = self.millis(LONGEST_PAUSE);
                self.pause(number, pause);
            }
            6 => {
                let jump = self.millis(LONGEST_PAUSE);
                if let Some(node) = &mut self.nodes[number] {
                    node.ahead += jump;
                }
            }
            7 => self.kill(number),
            8 => {
                if self.nodes[number].is_none() {
                    self.start(number);
                }
            }
            9 => self.faults.twice = 30,
            10 => self.faults.late = 60,
            11 => self.faults.damaged = *self.random.pick(&[5, 30]),
            12 => {
                let flap = self.millis(LONGEST_FLAP);
                self.flap(number, segment, flap);
            }
            13 => self.reload(number),
            _ => self.stop(number),
        }
    }

    /// Everything is whole from now on.
    pub(crate) fn mend(&mut self) {
        self.note("whole");
        self.faults = Faults::default();
        self.cut = [[[false; 3]; 3]; 2];
        self.plan.clear();
        for number in 0..2 {
            for segment in 0..2 {
                if self.down[number][segment] {
                    self.set_link(number, segment, true);
                }
            }
            match &mut self.nodes[number] {
                Some(node) => node.paused_until = self.now,
                None => self.start(number),
            }
        }
    }

    fn millis(&mut self, most: usize) -> Duration {
        Duration::from_millis(1 + self.random.below(most) as u64)
    }

    pub(crate) fn pause(&mut self, number: usize, pause: Duration) {
        let until = self.now + pause;
        self.watch.forgive(number);
        if let Some(node) = &mut self.nodes[number] {
            node.paused_until = until;
        }
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
        self.watch.forgive(number);
    }

    /// Asks a router to stop.
    pub(crate) fn stop(&mut self, number: usize) {
        let now = self.now;
        let Some(node) = self.nodes[number].as_mut().filter(|node| node.paused_until <= now) else {
            return;
        };
        let out = node.shut_down(now);
        self.kill(number);
        for (link, frame) in out {
            self.node_sent((number, Role::Active), link.index(), frame);
        }
    }

    /// A link goes down, and up again after a while.
    pub(crate) fn flap(&mut self, number: usize, segment: usize, after: Duration) {
        self.watch.forgive(number);
        self.set_link(number, segment, false);
        self.plan.push((self.now + after, Planned::LinkUp(number, segment)));
    }

    /// Another configuration at one router: weights change, a server comes or goes that has no flows.
    pub(crate) fn reload(&mut self, number: usize) {
        let random = &mut self.random;
        let Some(node) = &mut self.nodes[number] else { return };
        let port = match self.shape {
            Shape::Nat => 8_080,
            Shape::Bridged => 80,
        };
        node.router.now = self.now + node.ahead;
        node.router.change(|config| {
            let servers = &mut config.services[0].servers;
            for server in servers.iter_mut() {
                server.weight = 1 + u16::try_from(random.below(3)).unwrap();
            }
            servers.truncate(3);
            if random.percent(50) {
                servers.push(crate::support::server(14, port, 0));
            }
        });
    }

    /// When the active router will have been missed and replaced for certain, from now on.
    pub(crate) fn master_down(&self) -> Instant {
        // Three intervals and the skew of priority 100, and what frames and turns take.
        self.now + ADVERTS * 4 + crate::net::DELAY * 4
    }

    pub(crate) fn is_active(&self, number: usize) -> bool {
        self.nodes[number].as_ref().is_some_and(|node| node.ha.role() == Role::Active)
    }
}
