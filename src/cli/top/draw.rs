//! The picture as lines of text: as many of each part as the terminal has room for.

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::keys::{HELP, SHORT_HELP};
use super::picture::Picture;
use super::sort::{Column, Order};
use crate::cli::show::services::{Rates, Row};
use crate::cli::units::{count, duration};
use crate::control::protocol::{Figures, Now, Server};

/// Columns of numbers: head, width with the space before it.
const NUMBERS: [(&str, usize); 6] =
    [("WEIGHT", 7), ("ACTIVE", 8), ("INACTIVE", 9), ("NEW/S", 7), ("IN b/s", 8), ("OUT b/s", 8)];
const HEALTH: usize = 9;
/// A name has what the numbers leave, and no more than this.
const LONGEST_NAME: usize = 48;

const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const SERVICE: Style = Style::new().fg(Color::Cyan);
const NOTICE: Style = Style::new().fg(Color::Yellow);
const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Draws all of it; scrolling stops where the last line is.
pub(super) fn draw(picture: &mut Picture, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = header(picture, width);
    let links = links(picture, height / 6);
    let drops = drops(picture, width, height / 6);
    let help = if width > HELP.chars().count() { HELP } else { SHORT_HELP };
    let rest = links.len() + drops.len() + 1;
    let room = height.saturating_sub(lines.len() + rest + 1);
    lines.extend(services(picture, width, room));
    lines.extend(links);
    lines.extend(drops);
    // The last line is the keys', however little room there is.
    lines.truncate(height.saturating_sub(1));
    lines.push(Line::styled(help, Style::new().add_modifier(Modifier::REVERSED)));
    frame.render_widget(Paragraph::new(lines), area);
}

fn header(picture: &Picture, width: usize) -> Vec<Line<'static>> {
    let Some(status) = &picture.status else {
        let waiting = picture.lost.as_deref().unwrap_or("waiting for the router's first answer");
        return vec![Line::raw(waiting.to_owned())];
    };
    let Now { uptime_us, generation, flows, max_flows, turns, .. } = &status.now;
    let name = &status.name;
    let number = |number: usize| count(number as u64);
    let (flows, most) = (number(*flows), number(*max_flows));
    let up = duration(*uptime_us);
    let mut first = vec![
        Span::styled(name.clone(), HEAD),
        Span::raw(format!("  up {up}, generation {generation}")),
    ];
    first.push(Span::raw(format!(", {flows} of {most} flows")));
    if status.down > 0 {
        first.push(Span::styled(format!(", {} down", status.down), ALARM));
    }
    if status.overridden > 0 {
        first.push(Span::styled(format!(", {} overridden", status.overridden), NOTICE));
    }
    let second = match (&picture.lost, &picture.frames) {
        (Some(reason), _) => {
            let text = cut(&format!("connection lost, retrying: {reason}"), width);
            Line::styled(text, ALARM)
        }
        (None, None) => Line::raw("frames/s from the second look on"),
        (None, Some(rates)) => Line::raw(format!(
            "frames/s {} in, {} out, {} dropped; longest turn {}",
            count(rates.received),
            count(rates.sent),
            count(rates.dropped),
            duration(turns.longest_us)
        )),
    };
    vec![Line::from(first), second]
}

fn services(picture: &mut Picture, width: usize, room: usize) -> Vec<Line<'static>> {
    let numbers: usize = NUMBERS.iter().map(|(_, width)| width).sum();
    let name = width.saturating_sub(numbers + HEALTH).clamp(8, LONGEST_NAME);
    let rows = picture.sorted();
    let all: Vec<_> = rows.iter().flat_map(|row| service_lines(row, name)).collect();
    picture.scrolled = picture.scrolled.min(all.len().saturating_sub(room));
    let mut lines = vec![head(picture.order, name)];
    lines.extend(all.into_iter().skip(picture.scrolled).take(room));
    // So that what stands below does not jump.
    lines.resize(room + 1, Line::default());
    lines
}

/// The column that it is sorted by is marked.
fn head(order: Order, name: usize) -> Line<'static> {
    let marked = |head: &str| {
        let mark = match (order.by.head() == Some(head), order.reversed) {
            (false, _) => return head.to_owned(),
            (true, false) => "↓",
            (true, true) => "↑",
        };
        format!("{mark}{head}")
    };
    let mut text = fit(&marked("SERVICE"), name);
    text.push_str(&format!(" {:<1$}", "HEALTH", HEALTH - 1));
    for (head, width) in NUMBERS {
        text.push_str(&format!("{:>width$}", marked(head)));
    }
    if order.by == Column::File && order.reversed {
        text.push_str(" ↑");
    }
    Line::styled(text, HEAD)
}

fn service_lines(row: &Row, name: usize) -> Vec<Line<'static>> {
    let service = &row.service;
    let label = format!("{} {} {}", service.name, service.method, service.scheduler);
    let label = if service.name.chars().count() + 8 > name { service.name.clone() } else { label };
    let text = line(&label, name, "", None, &service.figures, row.rates);
    let mut lines = vec![Line::styled(text, SERVICE)];
    for (server, rates) in service.servers.iter().zip(&row.servers) {
        let (health, style) = health(server);
        let label = format!("  {}", server.name);
        let weight = Some(server.weight);
        let text = line(&label, name, health, weight, &server.figures, *rates);
        lines.push(Line::styled(text, style));
    }
    lines
}

/// What is known of a server's health, in a word.
fn health(server: &Server) -> (&'static str, Style) {
    let health = server.health.as_ref();
    if health.is_some_and(|health| !health.up && !health.checking) {
        ("down", ALARM)
    } else if server.drained {
        ("drained", NOTICE)
    } else if health.is_some_and(|health| health.checking) {
        ("checking", NOTICE)
    } else if server.fallback {
        ("fallback", Style::new())
    } else if server.weight != server.configured_weight {
        ("changed", NOTICE)
    } else if health.is_some() {
        ("up", Style::new())
    } else {
        ("-", Style::new())
    }
}

fn line(
    label: &str,
    name: usize,
    health: &str,
    weight: Option<u16>,
    figures: &Figures,
    rates: Option<Rates>,
) -> String {
    let rate = |of: fn(&Figures) -> u64, times: u64| match rates {
        Some(rates) => count(rates.per_second(of).saturating_mul(times)),
        None => "-".to_owned(),
    };
    let numbers = [
        weight.map_or_else(String::new, |weight| weight.to_string()),
        count(figures.active.into()),
        count(figures.inactive.into()),
        rate(|figures| figures.connections, 1),
        rate(|figures| figures.bytes_in, 8),
        rate(|figures| figures.bytes_out, 8),
    ];
    let mut text = format!("{} {health:<1$}", fit(label, name), HEALTH - 1);
    for (number, (_, width)) in numbers.iter().zip(NUMBERS) {
        text.push_str(&format!("{number:>width$}"));
    }
    text.trim_end().to_owned()
}

fn links(picture: &Picture, most: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        format!(
            "{:<18}{:>12}{:>10}{:>13}{:>10}  ",
            "LINK", "IN frames/s", "b/s", "OUT frames/s", "b/s"
        ),
        HEAD,
    )];
    for (link, rates) in picture.links.iter().take(most.max(2)) {
        let numbers = rates.map(|rates| {
            [rates.frames_in, rates.bits_in, rates.frames_out, rates.bits_out].map(count)
        });
        let [frames_in, bits_in, frames_out, bits_out] =
            numbers.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned()));
        let tap = fit(&link.tap, 18);
        let text = format!("{tap}{frames_in:>12}{bits_in:>10}{frames_out:>13}{bits_out:>10}");
        let mut line = Line::raw(text);
        if link.refused > 0 {
            line.push_span(Span::styled(format!("  refused {}", count(link.refused)), NOTICE));
        }
        if link.lost > 0 {
            line.push_span(Span::styled(format!("  removed {}", link.lost), NOTICE));
        }
        lines.push(line);
    }
    more(&mut lines, picture.links.len());
    lines
}

fn drops(picture: &Picture, width: usize, most: usize) -> Vec<Line<'static>> {
    if picture.drops.is_empty() {
        return vec![Line::styled("NOTHING DROPPED", HEAD)];
    }
    let head = format!("{:<22}{:>8}{:>10}  MEANING", "DROPPED", "FRAMES/S", "IN ALL");
    let mut lines = vec![Line::styled(head, HEAD)];
    for (drop, rate) in picture.drops.iter().take(most.max(2)) {
        let per_second = rate.map_or_else(|| "-".to_owned(), count);
        let style = if rate.is_some_and(|rate| rate > 0) { NOTICE } else { Style::new() };
        let all = count(drop.count);
        let text = format!("{}{per_second:>8}{all:>10}  {}", fit(&drop.reason, 22), drop.meaning);
        lines.push(Line::styled(cut(&text, width), style));
    }
    more(&mut lines, picture.drops.len());
    lines
}

/// Says in the head how many more there are.
fn more(lines: &mut [Line<'static>], all: usize) {
    let hidden = all.saturating_sub(lines.len() - 1);
    if hidden > 0
        && let Some(head) = lines.first_mut()
    {
        head.push_span(Span::raw(format!("  {hidden} more")));
    }
}

/// Exactly so wide.
fn fit(text: &str, width: usize) -> String {
    format!("{:<width$}", cut(text, width))
}

/// No wider.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
