//! Bars as SVG, which any browser and GitHub show: a forwarder each, its median with lowest and highest.

use std::fmt::Write as _;

use crate::load::{Unit, Workload};
use crate::outcome::{Report, Row};
use crate::statistics::{median, range};

use super::markdown::series;
use super::units::value;

const WIDTH: f64 = 860.0;
/// Where bars begin and end.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 700.0;
const ROW: f64 = 24.0;
const TOP: f64 = 46.0;

/// One workload.
pub(super) fn bars(report: &Report, workload: Workload) -> String {
    let found = report.workloads.iter().find(|one| one.workload == workload.name());
    let rows: Vec<&Row> = found.map_or_else(Vec::new, |one| {
        one.rows.iter().filter(|row| row.samples.iter().any(Option::is_some)).collect()
    });
    let values = |row: &Row| series(row).into_iter().flatten().collect::<Vec<f64>>();
    let most = rows.iter().flat_map(|row| values(row)).max_by(f64::total_cmp).unwrap_or(1.0);
    let scale = |value: f64| (RIGHT - LEFT) * value / most;
    let height = TOP + ROW * rows.len() as f64 + 12.0;
    let better = if workload.unit() == Unit::Micros { "less is better" } else { "more is better" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
         <text x=\"12\" y=\"38\" fill=\"#666666\" font-size=\"11\">median, lowest to highest of {} rounds; {better}</text>\n",
        escaped(workload.title()),
        report.rounds
    );
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let values = values(row);
        let (middle, (low, high)) =
            (median(&values).unwrap_or_default(), range(&values).unwrap_or_default());
        let (baseline, center) = (y + 15.0, y + 10.0);
        let _infallible = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{center:.1}\" y2=\"{center:.1}\" stroke=\"#222222\"/>\n\
             <text x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>",
            LEFT - 8.0,
            escaped(&row.forwarder),
            y + 2.0,
            scale(middle),
            color(&row.forwarder),
            LEFT + scale(low),
            LEFT + scale(high),
            LEFT + scale(high) + 8.0,
            escaped(&value(workload.unit(), middle)),
        );
    }
    svg + "</svg>\n"
}

/// tapvs stands out.
fn color(forwarder: &str) -> &'static str {
    match forwarder.split([' ', ',']).next() {
        Some("tapvs") => "#2f7fc1",
        Some("raw") => "#b8c4cf",
        _ => "#d9a441",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::report;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let report = report(|_, kind| Some(if kind.is_proxy() { 5e9 } else { 1e10 }));
        let svg = bars(&report, Workload::Bulk1);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        // 470 wide is all there is.
        assert_eq!(svg.matches("width=\"470.0\"").count(), 13);
        assert_eq!(svg.matches("width=\"235.0\"").count(), 2);
        assert_eq!(svg.matches("5.00 Gbit/s").count(), 2);
        let opened = svg.matches("<text").count() + svg.matches("<svg").count();
        assert_eq!(opened, svg.matches("</text>").count() + svg.matches("</svg>").count());
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        let mut report = report(|_, _| Some(1.0));
        report.workloads[0].rows[0].samples = vec![None, None];
        assert!(!bars(&report, Workload::Small).contains("raw, plain, read/write"));
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
