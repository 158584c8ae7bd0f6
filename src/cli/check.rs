//! `tapvs check FILE`: validates a configuration and says what it means.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{Balance, Config, Failover, FailoverNetwork, Network, Service};
use crate::control::{self, LoadError};
use crate::host;
use crate::lab::grid::{Grid, Side};

/// The summary of a valid file.
pub(super) fn check(file: &Path) -> Result<String, LoadError> {
    let config = control::load(file)?;
    Ok(format!("{}: valid\n{}", file.display(), summary(&config)))
}

fn summary(config: &Config) -> String {
    let router = &config.router;
    let flows = router.max_flows.map_or_else(
        || "a quarter of memory for flows, at most 1000000".to_owned(),
        |flows| format!("at most {flows} flows"),
    );
    let mut text = String::new();
    let _ = writeln!(
        text,
        "router {}: {flows}; forward {}, unserved {}",
        router.name, router.forward, router.unserved
    );
    if let Some(page) = &config.status_page {
        let changes = match &page.token_file {
            Some(file) => format!("changes with the token in {}", file.display()),
            None => "no changes".to_owned(),
        };
        let _ = writeln!(text, "status page {}: {changes}", page.listen);
    }
    let parts =
        [networks(config), virtual_ips(config), routes(config), services(config), checks(config)];
    if let Some(failover) = &config.failover {
        text.push_str(&pair(config, failover));
    }
    for part in parts.into_iter().flatten() {
        text.push('\n');
        text.push_str(&part);
    }
    text
}

/// The role that it takes part in, and with whom.
fn pair(config: &Config, failover: &Failover) -> String {
    let Failover { version, priority, advert_interval, preempt, networks, sync, .. } = failover;
    let network = |member: &FailoverNetwork| {
        format!("{} by id {}", network_name(config, member.network), member.virtual_router_id)
    };
    let networks = networks.iter().map(network).collect::<Vec<_>>().join(", ");
    let preempt = if *preempt { "" } else { ", does not preempt" };
    let sync = sync.as_ref().map_or_else(
        || "flows are not copied".to_owned(),
        |sync| format!("flows are copied to {}:{}", sync.peer, sync.port),
    );
    format!(
        "failover by VRRPv{version} on {networks}: priority {priority}{preempt}, adverts every \
         {advert_interval}; {sync}\n"
    )
}

fn networks(config: &Config) -> Option<String> {
    let mut columns = left(["NETWORK", "LINKS", "ADDRESSES", "GATEWAY", "MTU"]);
    for network in &config.networks {
        columns.row([
            network.name.clone(),
            links(network),
            list(network.addresses.iter().map(ToString::to_string)),
            network.gateway.map_or_else(|| "-".to_owned(), |gateway| gateway.to_string()),
            network.mtu.to_string(),
        ]);
    }
    (!config.networks.is_empty()).then(|| text(&columns))
}

fn virtual_ips(config: &Config) -> Option<String> {
    let mut columns = left(["VIRTUAL IP", "NETWORK"]);
    for vip in &config.virtual_ips {
        columns.row([vip.address.to_string(), network_name(config, vip.network)]);
    }
    (!config.virtual_ips.is_empty()).then(|| text(&columns))
}

fn routes(config: &Config) -> Option<String> {
    let mut columns = left(["ROUTE", "VIA", "NETWORK"]);
    for route in &config.routes {
        let network = network_name(config, route.network);
        columns.row([route.to.to_string(), route.via.to_string(), network]);
    }
    (!config.routes.is_empty()).then(|| text(&columns))
}

/// A line per service, its servers indented below it.
fn services(config: &Config) -> Option<String> {
    let mut columns = left(["SERVICE", "ADDRESS", "METHOD", "SCHEDULER", "WEIGHT"]);
    for service in &config.services {
        let virtual_ip = service.listen();
        columns.row([
            service.name.clone(),
            format!("{} {virtual_ip}", service.protocol),
            service.method.to_string(),
            scheduling(service),
            String::new(),
        ]);
        let blank = String::new;
        for member in service.group.iter().flat_map(|group| &group.members) {
            let address = format!("{} {}", member.protocol, member.listen());
            columns.row([member.name.clone(), address, blank(), blank(), blank()]);
        }
        for server in &service.servers {
            let (name, endpoint) = (format!("  {}", server.name), server.endpoint.to_string());
            columns.row([name, endpoint, blank(), blank(), server.weight.to_string()]);
        }
        if let Some(fallback) = &service.fallback {
            let (name, endpoint) = (format!("  {}", fallback.name), fallback.endpoint.to_string());
            columns.row([name, endpoint, blank(), blank(), "fallback".to_owned()]);
        }
    }
    (!config.services.is_empty()).then(|| text(&columns))
}

/// The scheduler, and what else decides.
fn scheduling(service: &Service) -> String {
    let Balance { persistence, expire_quiescent, one_packet, timeouts: _, flags: _ } =
        service.balance;
    let mut words = vec![service.scheduler.to_string()];
    words.extend(service.flag_words());
    if let Some(persistence) = persistence {
        words.push(format!("persistent {persistence}"));
    }
    if expire_quiescent {
        words.push("expire_quiescent".to_owned());
    }
    if one_packet {
        words.push("one_packet".to_owned());
    }
    if let Some(group) = &service.group {
        words.push(format!("group {}", group.name));
    }
    words.join(", ")
}

/// How each service's servers are asked, and how much that is altogether.
fn checks(config: &Config) -> Option<String> {
    let mut columns = left(["HEALTH OF", "SERVERS", "CHECK"]);
    let checked =
        config.services.iter().filter_map(|service| Some((service, service.health.as_ref()?)));
    let (mut count, mut an_hour, mut silent) = (0_u64, 0_u64, 0_u64);
    for (service, health) in checked {
        let servers = service.servers.len();
        columns.row([service.name.clone(), servers.to_string(), health.to_string()]);
        let (servers, interval) = (servers as u64, health.interval.total_micros().max(1));
        count += servers;
        an_hour += servers * 3_600_000_000 / interval;
        silent += (servers * health.timeout.total_micros()).div_ceil(interval);
    }
    if count == 0 {
        return None;
    }
    let mut text = text(&columns);
    let (whole, tenth) = (an_hour / 3_600, an_hour / 360 % 10);
    let _ = writeln!(text, "{count} checks, {whole}.{tenth} a second");
    if silent > host::MOST_CHECKS as u64 {
        let _ = writeln!(
            text,
            "if none of these servers answered, {silent} checks would have to wait at once; at most {} \
             do, and the others would be late",
            host::MOST_CHECKS
        );
    }
    Some(text)
}

fn links(network: &Network) -> String {
    list(network.links.iter().map(|link| match &link.attach {
        None => link.tap.clone(),
        Some(attach) => format!("{}+{}", link.tap, attach.nic),
    }))
}

fn left<const N: usize>(head: [&str; N]) -> Grid<N> {
    Grid::new(head.map(|name| (name, Side::Left)))
}

fn text<const N: usize>(columns: &Grid<N>) -> String {
    columns.lines().into_iter().map(|line| line + "\n").collect()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

fn network_name(config: &Config, position: usize) -> String {
    config.networks.get(position).map_or_else(String::new, |network| network.name.clone())
}
