//! What operators have said about single servers while the router runs: it holds over the file's
//! weight, across reloads, for as long as the server is the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Endpoint, Ports, Proto};
use crate::config::{Config, Server, Service};

/// What makes a service and its server the same across reloads.
pub(super) type Key = (Proto, IpAddr, Ports, Endpoint);

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Override {
    /// No new flows.
    Drained,
    /// Another share.
    Weight(u16),
}

impl Override {
    /// The weight in use.
    pub(super) const fn weight(self) -> u16 {
        match self {
            Self::Drained => 0,
            Self::Weight(weight) => weight,
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides(BTreeMap<Key, Override>);

impl Overrides {
    /// What holds for a server.
    pub(super) fn of(&self, service: &Service, server: &Server) -> Option<Override> {
        self.0.get(&key(service, server)).copied()
    }

    /// The weight that a server has.
    pub(super) fn weight(&self, service: &Service, server: &Server) -> u16 {
        self.of(service, server).map_or(server.weight, Override::weight)
    }

    /// From now on, `wish` holds for the server; without one the file's weight does.
    pub(super) fn set(&mut self, service: &Service, server: &Server, wish: Option<Override>) {
        match wish {
            Some(wish) => self.0.insert(key(service, server), wish),
            None => self.0.remove(&key(service, server)),
        };
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The configuration that is to run.
    pub(super) fn apply<'c>(&self, config: &'c Config) -> Cow<'c, Config> {
        if self.0.is_empty() {
            return Cow::Borrowed(config);
        }
        let mut config = config.clone();
        for service in &mut config.services {
            for at in 0..service.servers.len() {
                service.servers[at].weight = self.weight(service, &service.servers[at]);
            }
        }
        Cow::Owned(config)
    }

    /// Forgets what was said about servers that `config` does not have. A line about each that
    /// still holds.
    pub(super) fn keep_for(&mut self, config: &Config) -> Vec<String> {
        let servers = config
            .services
            .iter()
            .flat_map(|service| service.servers.iter().map(move |server| (service, server)));
        let mut kept = BTreeMap::new();
        let mut lines = Vec::new();
        for (service, server) in servers {
            let Some(wish) = self.of(service, server) else { continue };
            kept.insert(key(service, server), wish);
            let label = format!("service {}: server {}", service.name, server.name);
            lines.push(match wish {
                Override::Drained => format!("{label}: stays drained until `tapvs undrain`"),
                Override::Weight(weight) => {
                    format!("{label}: keeps weight {weight} until `tapvs undrain`")
                }
            });
        }
        self.0 = kept;
        lines
    }
}

pub(super) fn key(service: &Service, server: &Server) -> Key {
    (service.protocol, service.address, service.ports(), server.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::config;

    fn weights(config: &Config) -> Vec<u16> {
        config.services[0].servers.iter().map(|server| server.weight).collect()
    }

    #[test]
    fn they_hold_over_the_file_while_the_server_is_the_same() {
        let mut overrides = Overrides::default();
        let mut config = config();
        assert!(matches!(overrides.apply(&config), Cow::Borrowed(_)));
        let service = &config.services[0];
        overrides.set(service, &service.servers[0], Some(Override::Drained));
        overrides.set(service, &service.servers[1], Some(Override::Weight(7)));
        assert_eq!(weights(&overrides.apply(&config)), [0, 7]);

        // Another name and weight in the file make no other server.
        config.services[0].name = "www".to_owned();
        config.services[0].servers[0].name = "one".to_owned();
        config.services[0].servers[0].weight = 5;
        let lines = overrides.keep_for(&config);
        assert_eq!(
            lines.join("\n"),
            "service www: server one: stays drained until `tapvs undrain`\n\
                                      service www: server web2: keeps weight 7 until `tapvs undrain`"
        );
        assert_eq!(weights(&overrides.apply(&config)), [0, 7]);

        // Another port does.
        config.services[0].servers[0].endpoint.port = 9;
        assert_eq!(overrides.keep_for(&config).len(), 1);
        assert_eq!(weights(&overrides.apply(&config)), [5, 7]);
        config.services[0].servers[0].endpoint.port = 8080;
        assert_eq!(weights(&overrides.apply(&config)), [5, 7], "it was forgotten with the server");

        let service = &config.services[0];
        overrides.set(service, &service.servers[1], None);
        assert_eq!((weights(&overrides.apply(&config)), overrides.len()), (vec![5, 1], 0));
    }
}
