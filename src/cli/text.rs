//! Numbers and lists as people read them.
//!
//! Knows units and tables. Does not know what is counted.
//! Invariant: no foreign text leaves here with a control character in it.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::names::clean;

/// A size in decimal units, as the Hub's pages show it.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    // 999,950 would be rounded to `1000.0 kB`.
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {name}") }
}

/// A time as a person says it.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `1 file`, `2 files`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Which way a column's cells lean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lean {
    Left,
    Right,
}

/// A table without frames, so that `awk` and eyes read it alike.
pub(super) fn table<const N: usize>(heads: [(&str, Lean); N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    // Cut to the terminal's width, a path could not be copied.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|(head, _)| *head));
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell, 1_000)));
    }
    for (column, (_, lean)) in table.column_iter_mut().zip(heads) {
        column.set_padding((0, 2));
        if lean == Lean::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_and_never_a_thousand() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (15_231_233_024, "15.2 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_table_shows_no_escape_that_a_peer_sent() {
        let text = table([("WHO", Lean::Left), ("N", Lean::Right)], [["\u{1b}[2Jx".into(), "1".into()]]);
        assert!(text.starts_with("WHO"));
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 2);
    }
}
