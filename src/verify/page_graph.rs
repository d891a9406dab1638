//! The picture of a pipeline in a report: a box for each step, with what came of it, and a line to each that waits for it.

use std::collections::BTreeSet;
use std::fmt;

use super::page::{Escaped, Node, class, told};
use super::verdict::StepVerdict;

/// A larger pipeline is not drawn: nobody could read it.
const STEPS_MAX: usize = 150;
/// So many characters of a name have room in a box.
const NAME_MAX_CHARS: usize = 22;
const BOX: (usize, usize) = (188, 48);
/// How far boxes are from each other: where lines go between them, and beside them.
const GAP: (usize, usize) = (52, 20);
const EDGE: usize = 4;

/// Where a box lies: how many steps at least come before its own, and which it is of those that have as many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spot {
    layer: usize,
    slot: usize,
}

/// Writes the picture, as SVG in HTML.
pub(super) fn write(f: &mut fmt::Formatter<'_>, nodes: &[Node<'_>], verified: &[StepVerdict]) -> fmt::Result {
    if nodes.len() > STEPS_MAX {
        return writeln!(f, "<p class=\"quiet\">The pipeline has {} steps, too many to draw.</p>", nodes.len());
    }
    let waits = direct(nodes);
    let spots = spots(&waits);
    let layers = spots.iter().map(|spot| spot.layer + 1).max().unwrap_or_default();
    let slots = spots.iter().map(|spot| spot.slot + 1).max().unwrap_or_default();
    // Whichever fits a page: pages are read from top to bottom.
    let is_upright = layers > 4 && layers >= slots;
    let (pitch_x, pitch_y) = if is_upright { (BOX.0 + GAP.1, BOX.1 + GAP.0) } else { (BOX.0 + GAP.0, BOX.1 + GAP.1) };
    let corner = |spot: Spot| {
        let (x, y) = if is_upright { (spot.slot, spot.layer) } else { (spot.layer, spot.slot) };
        (EDGE + x * pitch_x, EDGE + y * pitch_y)
    };
    let (columns, rows) = if is_upright { (slots, layers) } else { (layers, slots) };
    let length = |count: usize, pitch: usize, one: usize| 2 * EDGE + one + count.saturating_sub(1) * pitch;
    let (width, height) = (length(columns, pitch_x, BOX.0), length(rows, pitch_y, BOX.1));
    writeln!(f, "<div class=\"wide\"><svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">")?;
    writeln!(f, "<title>The steps of the pipeline, and what came of each</title>")?;
    for (index, others) in waits.iter().enumerate() {
        for other in others {
            write_line(f, corner(spots[*other]), corner(spots[index]), is_upright)?;
        }
    }
    for (node, spot) in nodes.iter().zip(&spots) {
        write_box(f, node.name, corner(*spot), verified)?;
    }
    writeln!(f, "</svg></div>")
}

/// Writes a line from one box to another that waits for it.
fn write_line(f: &mut fmt::Formatter<'_>, from: (usize, usize), to: (usize, usize), is_upright: bool) -> fmt::Result {
    const TIP: usize = 8;
    const HALF: usize = TIP / 2;
    if is_upright {
        let ((x1, y1), (x2, y2)) = ((from.0 + BOX.0 / 2, from.1 + BOX.1), (to.0 + BOX.0 / 2, to.1));
        let (end, bend) = (y2 - TIP, GAP.0 / 2);
        let (left, right, out, back) = (x2 - HALF, x2 + HALF, y1 + bend, y2 - bend);
        writeln!(f, "<path class=\"wait\" d=\"M{x1} {y1} C{x1} {out} {x2} {back} {x2} {end}\"/>")?;
        writeln!(f, "<path class=\"tip\" d=\"M{x2} {y2} L{left} {end} L{right} {end} Z\"/>")
    } else {
        let ((x1, y1), (x2, y2)) = ((from.0 + BOX.0, from.1 + BOX.1 / 2), (to.0, to.1 + BOX.1 / 2));
        let (end, bend) = (x2 - TIP, GAP.0 / 2);
        let (above, below, out, back) = (y2 - HALF, y2 + HALF, x1 + bend, x2 - bend);
        writeln!(f, "<path class=\"wait\" d=\"M{x1} {y1} C{out} {y1} {back} {y2} {end} {y2}\"/>")?;
        writeln!(f, "<path class=\"tip\" d=\"M{x2} {y2} L{end} {above} L{end} {below} Z\"/>")
    }
}

fn write_box(f: &mut fmt::Formatter<'_>, name: &str, (x, y): (usize, usize), verified: &[StepVerdict]) -> fmt::Result {
    let found = verified.iter().enumerate().find(|(_, step)| step.step == name);
    let (class, level) = match found {
        Some((_, step)) => (class(step.is_allowed), told(step.level)),
        None => ("none", "not verified".to_owned()),
    };
    if let Some((number, _)) = found {
        write!(f, "<a href=\"#step-{number}\">")?;
    }
    write!(f, "<g class=\"{class}\"><title>{}: {level}</title>", Escaped(name))?;
    write!(f, "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>", BOX.0, BOX.1)?;
    let (left, first, second) = (x + 12, y + 20, y + 38);
    write!(f, "<text x=\"{left}\" y=\"{first}\">{}</text>", Escaped(&shortened(name)))?;
    write!(f, "<text class=\"level\" x=\"{left}\" y=\"{second}\">{level}</text></g>")?;
    if found.is_some() {
        write!(f, "</a>")?;
    }
    writeln!(f)
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_MAX_CHARS {
        return name.to_owned();
    }
    name.chars().take(NAME_MAX_CHARS - 1).chain(['…']).collect()
}

/// Returns for each step those that it waits for, without those that one of these waits for anyhow.
fn direct(nodes: &[Node<'_>]) -> Vec<Vec<usize>> {
    let mut before: Vec<BTreeSet<usize>> = Vec::new();
    for node in nodes {
        let all = node.waits_for.iter().flat_map(|other| before[*other].iter().chain([other])).copied().collect();
        before.push(all);
    }
    let is_implied =
        |node: &Node<'_>, other: usize| node.waits_for.iter().any(|middle| before[*middle].contains(&other));
    nodes
        .iter()
        .map(|node| node.waits_for.iter().copied().filter(|other| !is_implied(node, *other)).collect())
        .collect()
}

/// Returns where each box lies: below or beside those that its step waits for, and in each layer in the order of theirs.
fn spots(waits: &[Vec<usize>]) -> Vec<Spot> {
    let mut layers: Vec<usize> = Vec::new();
    for others in waits {
        layers.push(others.iter().map(|other| layers[*other] + 1).max().unwrap_or_default());
    }
    let mut spots = vec![Spot { layer: 0, slot: 0 }; waits.len()];
    for layer in 0..=layers.iter().copied().max().unwrap_or_default() {
        let mut inside: Vec<usize> = (0..waits.len()).filter(|index| layers[*index] == layer).collect();
        // In the middle of what they wait for, in hundredths of a slot; by the order of the file where that is the same.
        inside.sort_by_key(|index| {
            let others = &waits[*index];
            100 * others.iter().map(|other| spots[*other].slot).sum::<usize>() / others.len().max(1)
        });
        for (slot, index) in inside.into_iter().enumerate() {
            spots[index] = Spot { layer, slot };
        }
    }
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(waits_for: &[usize]) -> Node<'static> {
        Node { name: "step", waits_for: waits_for.to_vec() }
    }

    #[test]
    fn a_line_that_others_imply_is_left_out() {
        let nodes = [node(&[]), node(&[0]), node(&[0, 1]), node(&[0, 1, 2]), node(&[0])];
        assert_eq!(direct(&nodes), [vec![], vec![0], vec![1], vec![2], vec![0]]);
    }

    #[test]
    fn no_two_boxes_lie_in_one_spot_and_each_lies_after_what_it_waits_for() {
        let waits = [vec![], vec![], vec![1], vec![0], vec![2, 3], vec![0, 4]];
        let spots = spots(&waits);
        for (index, others) in waits.iter().enumerate() {
            assert!(others.iter().all(|other| spots[*other].layer < spots[index].layer), "{spots:?}");
            assert!(spots[..index].iter().all(|other| *other != spots[index]), "{spots:?}");
        }
        // Lines do not cross where they need not.
        assert!(spots[3].slot < spots[2].slot, "{spots:?}");
    }
}
