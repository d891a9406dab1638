//! What was measured of one thing, and whether it holds what it should.

use serde::{Deserialize, Serialize};

use super::child::{Cost, largest};

/// One thing that was measured, beside what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The name by which it is chosen; rows that are measured together share it.
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) measured: Series,
    pub(crate) floor: Option<Series>,
    pub(crate) hold: Hold,
    /// The most memory that it may hold, in MiB.
    pub(crate) hold_peak_mib: Option<f64>,
    /// The same operation of other programs.
    pub(crate) peers: Vec<Series>,
}

/// What should hold, for the number that counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hold {
    /// At most so many times the floor.
    Ratio(f64),
    /// At most so much, in the unit of what was measured.
    Amount(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Ms,
    Mib,
}

/// The values of all rounds of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) values: Vec<f64>,
    pub(crate) peak_mib: Option<f64>,
}

impl Series {
    pub(crate) fn times(what: &str, costs: &[Cost]) -> Self {
        Self {
            what: what.to_owned(),
            unit: Unit::Ms,
            values: costs.iter().map(|cost| cost.ms).collect(),
            peak_mib: costs.iter().fold(None, |peak, cost| largest(peak, cost.peak_mib)),
        }
    }

    pub(crate) fn sizes(what: &str, mib: Vec<f64>) -> Self {
        Self { what: what.to_owned(), unit: Unit::Mib, values: mib, peak_mib: None }
    }

    /// The number that counts. Of times the least: what is above it, the machine added. Of sizes the largest.
    pub(crate) fn telling(&self) -> f64 {
        match self.unit {
            Unit::Ms => self.values.iter().copied().fold(f64::INFINITY, f64::min),
            Unit::Mib => self.values.iter().copied().fold(0.0, f64::max),
        }
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    /// A value of this series as people read it.
    pub(crate) fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::Ms if value < 1000.0 => format!("{value:.1} ms"),
            Unit::Ms => format!("{:.2} s", value / 1000.0),
            Unit::Mib if value < 10.0 => format!("{value:.2} MiB"),
            Unit::Mib => format!("{value:.0} MiB"),
        }
    }
}

impl Row {
    /// How many times the floor it takes; none without a floor.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.floor.as_ref().map(|floor| self.measured.telling() / floor.telling())
    }

    /// The part of what it may take that it takes: above 1 it does not hold. None where its floor is missing.
    pub(crate) fn share(&self) -> Option<f64> {
        let own = match self.hold {
            Hold::Ratio(most) => self.ratio()? / most,
            Hold::Amount(most) => self.measured.telling() / most,
        };
        let peak = self.hold_peak_mib.and_then(|most| Some(self.measured.peak_mib? / most));
        largest(Some(own), peak)
    }

    /// Whether it holds; none where that could not be told.
    pub(crate) fn is_held(&self) -> Option<bool> {
        self.share().map(|share| share <= 1.0)
    }

    /// What should hold, as people read it.
    pub(crate) fn hold_shown(&self) -> String {
        let own = match self.hold {
            Hold::Ratio(most) => format!("<= {most}x"),
            Hold::Amount(most) => match self.measured.unit {
                Unit::Ms => format!("<= {most} ms"),
                Unit::Mib => format!("<= {most} MiB"),
            },
        };
        self.hold_peak_mib.map_or_else(|| own.clone(), |most| format!("{own}, RSS <= {most} MiB"))
    }

    /// What is compared with that: the ratio or the amount, and the memory where it counts.
    pub(crate) fn measured_shown(&self) -> String {
        let own = match (self.hold, self.ratio()) {
            (Hold::Ratio(_), Some(ratio)) => format!("{ratio:.2}x"),
            (Hold::Ratio(_), None) => "no floor".to_owned(),
            (Hold::Amount(_), _) => self.measured.shown(self.measured.telling()),
        };
        match (self.hold_peak_mib, self.measured.peak_mib) {
            (None, _) => own,
            (Some(_), Some(peak)) => format!("{own}, RSS {peak:.0} MiB"),
            (Some(_), None) => format!("{own}, RSS not seen"),
        }
    }
}

/// Returns a table in Markdown, a line a row.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | least | median | floor | its least | its median | measured | hold | held | rounds |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let series = |series: &Series| (series.shown(series.telling()), series.shown(series.median()));
        let (telling, median) = series(&row.measured);
        let (floor, (floor_telling, floor_median)) = match &row.floor {
            Some(floor) => (floor.what.as_str(), series(floor)),
            None => ("-", ("-".to_owned(), "-".to_owned())),
        };
        let held = row.is_held().map_or("unknown", |held| if held { "yes" } else { "**no**" });
        let cells = [
            &row.what,
            &telling,
            &median,
            floor,
            &floor_telling,
            &floor_median,
            &row.measured_shown(),
            &row.hold_shown(),
            held,
            &row.measured.values.len().to_string(),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// Returns a table of what other programs need for the same, in Markdown, with how many times what `pv` needs that is.
/// Empty without any.
pub(crate) fn peers_table(rows: &[Row]) -> String {
    let names: Vec<&str> = rows.iter().flat_map(|row| &row.peers).fold(Vec::new(), |mut names, peer| {
        if !names.contains(&peer.what.as_str()) {
            names.push(&peer.what);
        }
        names
    });
    if names.is_empty() {
        return String::new();
    }
    let mut text =
        format!("| what | pv | floor | {} |\n|---|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for row in rows.iter().filter(|row| !row.peers.is_empty()) {
        let own = row.measured.telling();
        let floor = row.floor.as_ref().map_or_else(|| "-".to_owned(), |floor| floor.shown(floor.telling()));
        text += &format!("| {} | {} | {floor} |", row.what, row.measured.shown(own));
        for name in &names {
            match row.peers.iter().find(|peer| peer.what == *name) {
                Some(peer) => text += &format!(" {} ({:.1}x) |", peer.shown(peer.telling()), peer.telling() / own),
                None => text += " - |",
            }
        }
        text.push('\n');
    }
    text
}
