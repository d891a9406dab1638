//! The plot: a bar a row, its length the part of what it may take that it takes.

use crate::common::row::{Row, Unit};

const WIDTH: f64 = 1080.0;
const LABELS: f64 = 400.0;
const BARS: f64 = 340.0;
const ROW: f64 = 24.0;
const BAR: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 16.0;
/// Where bars end that are longer: a share of twice what is allowed.
const MOST: f64 = 2.0;

/// Colours for a light and a dark page. The verdict is also told in words.
const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #1f2328 }
    .quiet { fill: #59636e }
    .track { fill: #eaeef2 }
    .held { fill: #0969da }
    .not { fill: #bc4c00 }
    .unknown { fill: #818b98 }
    line { stroke: #1f2328; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      .quiet { fill: #9198a1 }
      .track { fill: #2a313c }
      .held { fill: #4493f8 }
      .not { fill: #f0883e }
      .unknown { fill: #656c76 }
      line { stroke: #f0f6fc }
    }";

/// Returns an SVG image. It has no background, and its colours follow those of the page.
pub(crate) fn bars(rows: &[Row]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let limit = LABELS + BARS / MOST;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n  \
         <title>The part of what it may take that each operation takes</title>\n  <style>\n    {STYLE}\n  </style>\n  \
         <text x=\"{limit}\" y=\"20\" text-anchor=\"middle\" class=\"quiet\">what it may take</text>\n"
    );
    for (row, at) in rows.iter().zip(0_u16..) {
        text += &bar(row, TOP + ROW * f64::from(at));
    }
    text += &format!("  <line x1=\"{limit}\" y1=\"28\" x2=\"{limit}\" y2=\"{}\"/>\n</svg>\n", height - BOTTOM / 2.0);
    text
}

fn bar(row: &Row, top: f64) -> String {
    let (class, verdict) = match row.is_held() {
        Some(true) => ("held", ""),
        Some(false) => ("not", " - not held"),
        None => ("unknown", " - unknown"),
    };
    let baseline = top + ROW / 2.0 + 4.0;
    let bar_top = top + (ROW - BAR) / 2.0;
    let length = BARS / MOST * row.share().unwrap_or(0.0).min(MOST);
    let kind = if row.measured.unit == Unit::Mib && !row.what.contains("store") { " (size)" } else { "" };
    format!(
        "  <text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{}{kind}</text>\n  \
         <rect x=\"{LABELS}\" y=\"{bar_top}\" width=\"{BARS}\" height=\"{BAR}\" rx=\"2\" class=\"track\"/>\n  \
         <rect x=\"{LABELS}\" y=\"{bar_top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>\n  \
         <text x=\"{}\" y=\"{baseline}\" class=\"quiet\">{} of {}{verdict}</text>\n",
        LABELS - 10.0,
        escaped(&row.what.replace('`', "")),
        LABELS + BARS + 10.0,
        escaped(&row.measured_shown()),
        escaped(&row.hold_shown().replace("<= ", "")),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
