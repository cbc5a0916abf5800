//! One figure: a case, its peer, and whether the bound is kept.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        self.0.extend(values);
    }

    pub(super) fn n(&self) -> usize {
        self.0.len()
    }

    /// The value below which that share of all lies; the largest for shares near 1 of few values.
    pub(super) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank, rounded up: a p99 of 50 values is the largest of them.
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// What a bound binds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    None,
    /// The median, in the figure's unit.
    P50(f64),
    /// The 99th percentile, in the figure's unit.
    P99(f64),
    /// The median as a multiple of the peer's.
    Ratio(f64),
    /// The same, where more is better.
    RatioAtLeast(f64),
}

/// One line of the answer.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    bench: String,
    case: String,
    unit: String,
    p50: f64,
    p99: f64,
    n: usize,
    peer: Option<(String, f64)>,
    bound: Bound,
}

impl Figure {
    /// Names of the columns of [`Figure::row`].
    pub(crate) const HEADING: &str =
        "bench     case                       p50        p99      n  peer               its p50  ratio  bound";

    pub(super) fn new(bench: &str, case: &str, unit: &str, series: &Series, bound: Bound) -> Self {
        let (p50, p99, n) = (series.at(0.5), series.at(0.99), series.n());
        Self { bench: bench.into(), case: case.into(), unit: unit.into(), p50, p99, n, peer: None, bound }
    }

    pub(super) fn beside(mut self, peer: &str, series: &Series) -> Self {
        self.peer = Some((peer.to_owned(), series.at(0.5)));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, p50)| self.p50 / p50)
    }

    /// `None`: there is no bound.
    fn kept(&self) -> Option<bool> {
        match self.bound {
            Bound::None => None,
            Bound::P50(most) => Some(self.p50 <= most),
            Bound::P99(most) => Some(self.p99 <= most),
            Bound::Ratio(most) => self.ratio().map(|ratio| ratio <= most),
            Bound::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
        }
    }

    /// One line of JSON. `binds` and `kept` say what the bound is about, so that nobody has to know the bench.
    pub(crate) fn json(&self) -> String {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let (binds, bound) = match self.bound {
            Bound::None => (None, None),
            Bound::P50(most) => (Some("p50"), Some(most)),
            Bound::P99(most) => (Some("p99"), Some(most)),
            Bound::Ratio(most) => (Some("ratio"), Some(round(most))),
            Bound::RatioAtLeast(least) => (Some("ratio at least"), Some(round(least))),
        };
        json!({
            "bench": self.bench, "case": self.case, "unit": self.unit, "p50": round(self.p50), "p99": round(self.p99),
            "n": self.n, "peer": self.peer.as_ref().map(|(name, _)| name),
            "peer_p50": self.peer.as_ref().map(|(_, p50)| round(*p50)), "ratio": self.ratio().map(round),
            "bound": bound, "binds": binds, "kept": self.kept(),
        })
        .to_string()
    }

    /// Reads what [`Figure::json`] wrote.
    pub(super) fn read(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("{line:?} is no figure"))?;
        let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("a figure has no {key}"));
        let number = |key: &str| value[key].as_f64().with_context(|| format!("a figure has no {key}"));
        let bound = match (value["binds"].as_str(), value["bound"].as_f64()) {
            (Some("p50"), Some(most)) => Bound::P50(most),
            (Some("p99"), Some(most)) => Bound::P99(most),
            (Some("ratio"), Some(most)) => Bound::Ratio(most),
            (Some("ratio at least"), Some(least)) => Bound::RatioAtLeast(least),
            _ => Bound::None,
        };
        let peer = value["peer"].as_str().map(str::to_owned).zip(value["peer_p50"].as_f64());
        let n = value["n"].as_u64().context("a figure has no n")? as usize;
        let (p50, p99) = (number("p50")?, number("p99")?);
        Ok(Self { bench: text("bench")?, case: text("case")?, unit: text("unit")?, p50, p99, n, peer, bound })
    }

    /// One line of a table.
    pub(crate) fn row(&self) -> String {
        let digits = if self.p99 >= 1000.0 { 0 } else { 2 };
        let value = |value: f64| format!("{value:.digits$} {}", self.unit);
        let (peer, peer_p50) = match &self.peer {
            Some((peer, p50)) => (peer.as_str(), value(*p50)),
            None => ("-", "-".into()),
        };
        let ratio = self.ratio().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        let bound = match self.bound {
            Bound::None => "-".into(),
            Bound::P50(most) => format!("p50 ≤ {most} {}", self.unit),
            Bound::P99(most) => format!("p99 ≤ {most} {}", self.unit),
            Bound::Ratio(most) => format!("ratio ≤ {most:.2}"),
            Bound::RatioAtLeast(least) => format!("ratio ≥ {least:.2}"),
        };
        let mark = if self.kept() == Some(false) { "  MISSED" } else { "" };
        let (bench, case, n) = (&self.bench, &self.case, self.n);
        let (p50, p99) = (value(self.p50), value(self.p99));
        format!(
            "{bench:<9} {case:<20} {p50:>12} {p99:>11} {n:>5}  {peer:<16} {peer_p50:>10}  {ratio:>5}  {bound}{mark}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        series.extend(values);
        series
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let fifty = series((1..=50).map(f64::from));
        assert_eq!((fifty.at(0.5), fifty.at(0.99), fifty.at(1.0)), (25.0, 50.0, 50.0));
        assert_eq!(series([7.0]).at(0.5), 7.0);
        assert!(series([]).at(0.5).is_nan());
    }

    #[test]
    fn a_figure_survives_its_line_of_json() {
        let figure = Figure::new("spawn", "vm", "ms", &series([3.0, 4.0, 5.0]), Bound::Ratio(1.5));
        let figure = figure.beside("bubblewrap", &series([2.0]));
        let again = Figure::read(&figure.json()).unwrap();
        assert_eq!(again.json(), figure.json());
        assert!(again.row().ends_with("MISSED"), "{}", again.row());
        assert_eq!(figure.kept(), Some(false));
        assert_eq!(Figure::new("x", "y", "ns", &series([50.0]), Bound::P50(50.0)).kept(), Some(true));
    }

    #[test]
    fn the_line_has_the_keys_that_are_promised() {
        let line = Figure::new("decide", "cached", "ns", &series([49.0]), Bound::P50(50.0)).json();
        let value: Value = serde_json::from_str(&line).unwrap();
        for key in ["bench", "case", "unit", "p50", "p99", "n", "peer", "peer_p50", "ratio", "bound"] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }
}
