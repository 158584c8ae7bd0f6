//! In which order services are shown, and the servers of each.

use std::cmp::Ordering;

use crate::cli::show::services::{Rates, Row};
use crate::control::protocol::Figures;

/// What to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
    /// As the file has it.
    #[default]
    File,
    Name,
    Weight,
    Active,
    Inactive,
    New,
    In,
    Out,
}

impl Column {
    pub(super) const fn of_key(key: char) -> Option<Self> {
        Some(match key {
            'f' => Self::File,
            'n' => Self::Name,
            'w' => Self::Weight,
            'a' => Self::Active,
            'i' => Self::Inactive,
            'c' => Self::New,
            'b' => Self::In,
            'o' => Self::Out,
            _ => return None,
        })
    }

    /// The head of its column; none for the file's order.
    pub(super) const fn head(self) -> Option<&'static str> {
        Some(match self {
            Self::File => return None,
            Self::Name => "SERVICE",
            Self::Weight => "WEIGHT",
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::New => "NEW/S",
            Self::In => "IN b/s",
            Self::Out => "OUT b/s",
        })
    }
}

/// A column and a direction: names from a to z, numbers the largest first, unless reversed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: Column,
    pub(super) reversed: bool,
}

/// What is compared.
struct Sortable<'s> {
    name: &'s str,
    weight: u64,
    figures: &'s Figures,
    rates: Option<Rates>,
}

impl Order {
    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| self.compare(&Sortable::service(a), &Sortable::service(b)));
        if self.by == Column::File && self.reversed {
            rows.reverse();
        }
        for row in rows {
            let mut servers: Vec<_> =
                row.service.servers.drain(..).zip(row.servers.drain(..)).collect();
            servers.sort_by(|(a, a_rates), (b, b_rates)| {
                let sortable = |server: &'_ crate::control::protocol::Server| {
                    (server.name.clone(), u64::from(server.weight), server.figures)
                };
                let ((a_name, a_weight, a), (b_name, b_weight, b)) = (sortable(a), sortable(b));
                let a = Sortable { name: &a_name, weight: a_weight, figures: &a, rates: *a_rates };
                let b = Sortable { name: &b_name, weight: b_weight, figures: &b, rates: *b_rates };
                self.compare(&a, &b)
            });
            (row.service.servers, row.servers) = servers.into_iter().unzip();
        }
    }

    /// Equals stay in the file's order.
    fn compare(self, a: &Sortable<'_>, b: &Sortable<'_>) -> Ordering {
        let larger_first = |of: fn(&Sortable<'_>) -> u64| of(b).cmp(&of(a));
        let ordering = match self.by {
            Column::File => Ordering::Equal,
            Column::Name => a.name.cmp(b.name),
            Column::Weight => larger_first(|s| s.weight),
            Column::Active => larger_first(|s| s.figures.active.into()),
            Column::Inactive => larger_first(|s| s.figures.inactive.into()),
            Column::New => larger_first(|s| s.rate(|figures| figures.connections)),
            Column::In => larger_first(|s| s.rate(|figures| figures.bytes_in)),
            Column::Out => larger_first(|s| s.rate(|figures| figures.bytes_out)),
        };
        if self.reversed { ordering.reverse() } else { ordering }
    }
}

impl<'s> Sortable<'s> {
    fn service(row: &'s Row) -> Self {
        let weight = row.service.servers.iter().map(|server| u64::from(server.weight)).sum();
        let service = &row.service;
        Self { name: &service.name, weight, figures: &service.figures, rates: row.rates }
    }

    fn rate(&self, of: fn(&Figures) -> u64) -> u64 {
        self.rates.map_or(0, |rates| rates.per_second(of))
    }
}
