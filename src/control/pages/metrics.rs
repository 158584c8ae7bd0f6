//! `/metrics`: a snapshot in the Prometheus text format, names and units by its conventions.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use super::Snapshot;
use crate::control::protocol::failover::{Discard, Failover};
use crate::control::protocol::{Figures, Ftp, Link, Server, Service};

/// What [`render`] writes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A value's labels, in the order in which they are shown.
type Labels<'s> = Vec<(&'static str, &'s str)>;

/// All metrics.
pub(super) fn render(snapshot: &Snapshot) -> Vec<u8> {
    let mut families = Families::default();
    families.router(snapshot);
    families.loop_and_frames(snapshot);
    families.links(snapshot);
    if let Some(ftp) = &snapshot.status.now.ftp {
        families.ftp(ftp);
    }
    if let Some(failover) = &snapshot.status.now.failover {
        families.failover(failover);
    }
    families.services(snapshot);
    families.servers(snapshot);
    let mut text = Vec::new();
    // Only a family without a name or a value is refused, and a writer that fails.
    let encoded = TextEncoder::new().encode(&families.0, &mut text);
    debug_assert!(encoded.is_ok(), "{encoded:?}");
    text
}

#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn router(&mut self, Snapshot { status, .. }: &Snapshot) {
        let labels = vec![("name", status.name.as_str()), ("version", &status.version)];
        self.gauge("tapvs_info", "The router's name and the program's version.", [(labels, 1.0)]);
        let now = &status.now;
        self.one("tapvs_uptime_seconds", "Since the start.", now.uptime_us as f64 / 1e6);
        let help = "Tables taken into use: configurations, weights, health.";
        self.one("tapvs_table_generation", help, f64::from(now.generation));
        self.one("tapvs_flows", "Flows tracked.", now.flows as f64);
        self.one("tapvs_flows_max", "Flows that fit.", now.max_flows as f64);
        let help = "Servers whose weight was changed by an operator's command.";
        self.one("tapvs_servers_overridden", help, status.overridden as f64);
        self.one("tapvs_servers_down", "Servers that are down.", status.down as f64);
        let help = "Others that speak for one of the router's addresses.";
        self.one("tapvs_address_claims", help, now.claims.len() as f64);
        let help = "Times that others spoke for one of the router's addresses.";
        let claims = now.claims.iter().map(|claim| {
            let labels = vec![
                ("address", claim.address.as_str()),
                ("network", &claim.network),
                ("mac", &claim.mac),
                ("suppressed", if claim.suppressed { "true" } else { "false" }),
            ];
            (labels, claim.count)
        });
        self.counter("tapvs_address_claims_total", help, claims);
    }

    fn loop_and_frames(&mut self, Snapshot { status, drops, .. }: &Snapshot) {
        let turns = &status.now.turns;
        self.count("tapvs_loop_turns_total", "Turns of the loop.", turns.count);
        let help = "The longest turn since the start: every frame may have to wait so long.";
        self.one("tapvs_loop_longest_turn_seconds", help, turns.longest_us as f64 / 1e6);
        let help = "Turns that took longer than a millisecond.";
        self.count("tapvs_loop_slow_turns_total", help, turns.above_1ms);
        let frames = &status.now.frames;
        for (name, help, value) in [
            ("tapvs_frames_received_total", "Frames read from all links.", frames.received),
            ("tapvs_frames_originated_total", "Frames that the router made.", frames.originated),
            ("tapvs_frames_copied_total", "Copies of flooded frames.", frames.copies),
            ("tapvs_frames_sent_total", "Frames written to all links.", frames.sent),
            (
                "tapvs_frames_to_host_total",
                "Frames for the router's own addresses.",
                frames.to_host,
            ),
            ("tapvs_frames_to_ha_total", "Adverts and copied flows of the peer.", frames.to_ha),
            ("tapvs_frames_split_total", "Frames that left in pieces.", frames.split),
            ("tapvs_frames_consumed_total", "Frames that end in the router.", frames.consumed),
        ] {
            self.count(name, help, value);
        }
        let help = "Frames that wait for an address to be resolved.";
        self.one("tapvs_frames_held", help, frames.held as f64);
        let reasons = drops.reasons.iter();
        let reasons = reasons.map(|drop| (vec![("reason", drop.reason.as_ref())], drop.count));
        self.counter("tapvs_drops_total", "Frames dropped.", reasons);
        let help = "ICMP errors and resets not made because there were too many.";
        self.count("tapvs_answers_suppressed_total", help, drops.answers_not_made);
        let host = &status.now.host;
        let help = "Packets taken in by the router's own IP stack.";
        self.count("tapvs_host_received_packets_total", help, host.received);
        let help = "Packets sent by the router's own IP stack.";
        self.count("tapvs_host_sent_packets_total", help, host.sent);
    }

    fn links(&mut self, Snapshot { status, .. }: &Snapshot) {
        type Read = fn(&Link) -> u64;
        let metrics: [(&str, &str, Read); 7] = [
            ("tapvs_link_receive_frames_total", "Frames read.", |link| link.frames_in),
            ("tapvs_link_receive_bytes_total", "Bytes read.", |link| link.bytes_in),
            ("tapvs_link_transmit_frames_total", "Frames written.", |link| link.frames_out),
            ("tapvs_link_transmit_bytes_total", "Bytes written.", |link| link.bytes_out),
            ("tapvs_link_receive_errors_total", "Failed reads.", |link| link.read_errors),
            ("tapvs_link_transmit_refused_total", "Frames the kernel refused.", |link| {
                link.refused
            }),
            ("tapvs_link_lost_total", "Times that the device was lost.", |link| link.lost),
        ];
        for (name, help, read) in metrics {
            let links = status.now.links.iter();
            let values = links.map(|link| (vec![("link", link.tap.as_str())], read(link)));
            self.counter(name, help, values);
        }
    }

    fn ftp(&mut self, ftp: &Ftp) {
        let help = "FTP control connections that are watched.";
        self.one("tapvs_ftp_control_connections", help, ftp.controls as f64);
        let help = "FTP data connections that are open.";
        self.one("tapvs_ftp_data_connections", help, ftp.data as f64);
        let help = "FTP data connections that were agreed on, and did not come yet.";
        self.one("tapvs_ftp_awaited_connections", help, ftp.awaited as f64);
        let help = "FTP data connections that were agreed on.";
        self.count("tapvs_ftp_offers_total", help, ftp.offers);
        let help = "FTP data connections that came.";
        self.count("tapvs_ftp_data_connections_total", help, ftp.connections);
        let help = "FTP texts that were changed to name the virtual IP.";
        self.count("tapvs_ftp_rewritten_texts_total", help, ftp.rewritten);
        let help = "FTP texts that opened no data connection.";
        let reasons = [
            ("full", ftp.full),
            ("refused", ftp.refused),
            ("unasked", ftp.unasked),
            ("unreadable", ftp.unreadable),
        ];
        let reasons = reasons.map(|(reason, count)| (vec![("reason", reason)], count));
        self.counter("tapvs_ftp_ignored_texts_total", help, reasons);
    }

    fn failover(&mut self, failover: &Failover) {
        let help = "1 while this router speaks for the virtual IPs.";
        self.one("tapvs_failover_active", help, f64::from(u8::from(failover.role == "active")));
        let help = "Since the last change of role.";
        self.one("tapvs_failover_role_seconds", help, failover.since_ms as f64 / 1e3);
        let help = "The priority that the router claims; 1 while something is wrong with it.";
        self.one("tapvs_failover_priority", help, f64::from(failover.priority));
        let help = "What is wrong with this router, so that it would give its role up.";
        self.one("tapvs_failover_faults", help, failover.faults.len() as f64);
        let help =
            "1 where the other router is heard as it should be, and no link of this one is down.";
        let paths = failover.networks.iter().map(|path| {
            let is_up = f64::from(u8::from(path.state == "ok"));
            (vec![("network", path.network.as_str())], is_up)
        });
        self.gauge("tapvs_failover_path_up", help, paths);
        let adverts = &failover.adverts;
        self.count("tapvs_failover_adverts_sent_total", "Adverts sent.", adverts.sent);
        self.count("tapvs_failover_adverts_received_total", "Adverts believed.", adverts.received);
        let help = "Adverts not believed.";
        self.reasons("tapvs_failover_adverts_discarded_total", help, &adverts.discarded);
        let Some(sync) = &failover.sync else { return };
        let help = "1 while the other router answers, so that flows are copied.";
        self.one("tapvs_sync_connected", help, f64::from(u8::from(sync.connected)));
        let help = "1 when the copy of the flows is complete.";
        self.one("tapvs_sync_complete", help, f64::from(u8::from(sync.complete)));
        let help = "How old the oldest record is that the other router has not confirmed.";
        self.one("tapvs_sync_lag_seconds", help, sync.lag_ms as f64 / 1e3);
        self.one("tapvs_sync_queued_records", "Records that wait.", sync.queued as f64);
        for (name, help, value) in [
            ("tapvs_sync_records_sent_total", "Records of flows sent.", sync.records_sent),
            (
                "tapvs_sync_records_received_total",
                "Records of flows taken in.",
                sync.records_received,
            ),
            ("tapvs_sync_datagrams_sent_total", "Datagrams sent.", sync.datagrams_sent),
            (
                "tapvs_sync_datagrams_repeated_total",
                "Datagrams sent again.",
                sync.datagrams_repeated,
            ),
            ("tapvs_sync_datagrams_received_total", "Datagrams taken in.", sync.datagrams_received),
        ] {
            self.count(name, help, value);
        }
        let help = "Records that could not be used.";
        self.reasons("tapvs_sync_records_refused_total", help, &sync.refused_records);
        let help = "Datagrams not believed.";
        self.reasons("tapvs_sync_datagrams_refused_total", help, &sync.refused_datagrams);
    }

    fn reasons(&mut self, name: &str, help: &str, discards: &[Discard]) {
        let values = discards
            .iter()
            .map(|discard| (vec![("reason", discard.reason.as_ref())], discard.count));
        self.counter(name, help, values);
    }

    fn services(&mut self, Snapshot { services, .. }: &Snapshot) {
        let all = || services.iter().map(|service| (labels(service, None), &service.figures));
        self.figures("service", all);
    }

    fn servers(&mut self, Snapshot { services, .. }: &Snapshot) {
        let all = || {
            services.iter().flat_map(|service| {
                service.servers.iter().map(move |server| (labels(service, Some(server)), server))
            })
        };
        self.figures("server", || all().map(|(labels, server)| (labels, &server.figures)));
        let help = "The weight in use; 0 takes no new flows.";
        let weights = all().map(|(labels, server)| (labels, f64::from(server.weight)));
        self.gauge("tapvs_server_weight", help, weights);
        let help = "How long its last health check took.";
        let took = all().filter_map(|(labels, server)| {
            let last = server.health.as_ref()?.last.as_ref()?;
            Some((labels, last.took_us as f64 / 1e6))
        });
        self.gauge("tapvs_server_check_duration_seconds", help, took);
        let help = "1 while an operator has drained it.";
        let drained = all().map(|(labels, server)| (labels, f64::from(u8::from(server.drained))));
        self.gauge("tapvs_server_drained", help, drained);
        let help = "1 while it has as many flows as it may have, its max_flows.";
        let full = all().map(|(labels, server)| (labels, f64::from(u8::from(server.overloaded))));
        self.gauge("tapvs_server_overloaded", help, full);
        let help = "1 unless its health checks, or its clients' connections, say that it is down.";
        let up = all().map(|(labels, server)| {
            let up = server.health.as_ref().is_none_or(|health| health.up);
            (labels, f64::from(u8::from(up)))
        });
        self.gauge("tapvs_server_up", help, up);
    }

    /// What services and servers have in common.
    fn figures<'s, I: Iterator<Item = (Labels<'s>, &'s Figures)>>(
        &mut self,
        what: &str,
        all: impl Fn() -> I,
    ) {
        let name = |name: &str| format!("tapvs_{what}_{name}");
        let active = all().map(|(labels, figures)| (labels, f64::from(figures.active)));
        self.gauge(name("active_flows"), "Flows in an active state.", active);
        let inactive = all().map(|(labels, figures)| (labels, f64::from(figures.inactive)));
        self.gauge(name("inactive_flows"), "All other flows.", inactive);
        let clients = all().map(|(labels, figures)| (labels, f64::from(figures.persistent)));
        self.gauge(name("persistent_clients"), "Clients remembered by persistence.", clients);
        type Read = fn(&Figures) -> u64;
        let counters: [(&str, &str, Read); 5] = [
            ("flows_opened_total", "Flows opened.", |figures| figures.connections),
            ("receive_packets_total", "Packets from clients.", |figures| figures.packets_in),
            ("transmit_packets_total", "Packets to clients.", |figures| figures.packets_out),
            ("receive_bytes_total", "Bytes from clients, IP header on.", |figures| {
                figures.bytes_in
            }),
            ("transmit_bytes_total", "Bytes to clients, IP header on.", |figures| {
                figures.bytes_out
            }),
        ];
        for (suffix, help, read) in counters {
            let values = all().map(|(labels, figures)| (labels, read(figures)));
            self.counter(name(suffix), help, values);
        }
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, [(Vec::new(), value)]);
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.counter(name, help, [(Vec::new(), value)]);
    }

    fn gauge<'s>(
        &mut self,
        name: impl Into<String>,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'s>, f64)>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_gauge(gauge);
            metric
        });
        self.family(name.into(), help, MetricType::GAUGE, metrics.collect());
    }

    fn counter<'s>(
        &mut self,
        name: impl Into<String>,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'s>, u64)>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_counter(counter);
            metric
        });
        self.family(name.into(), help, MetricType::COUNTER, metrics.collect());
    }

    fn family(&mut self, name: String, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            // The encoder refuses a family without a value.
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn labels<'s>(service: &'s Service, server: Option<&'s Server>) -> Labels<'s> {
    let mut labels = vec![("service", service.name.as_str())];
    match server {
        Some(server) => {
            labels.extend([("server", server.name.as_str()), ("address", &server.address)])
        }
        None => {
            labels.extend([("protocol", service.protocol.as_str()), ("address", &service.address)])
        }
    }
    labels
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.into_iter().map(pair).collect()
}
