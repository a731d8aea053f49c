//! A picture of a range's occupancy: one character for each cell, readable in 80 columns and without colour.

use std::fmt::Write;

use whereabouts_engine::{Cell, Family, Occupancy};

/// How wide a terminal is at least.
const COLUMNS: usize = 80;

/// How many cells a picture has at most.
pub(super) const CELLS: u32 = 256;

/// Draws the cells in rows that begin with the address of their first cell.
pub(super) fn picture(occupancy: &Occupancy) -> String {
    let Some(family) = occupancy.cells.first().map(|cell| cell.first.family()) else { return String::new() };
    // An address has up to 15 characters in IPv4 and 39 in IPv6; the rest of 80 columns is for cells.
    let (label, row) = match family {
        Family::V4 => (15, 64),
        Family::V6 => (39, 32),
    };
    let mut picture = String::new();
    for cells in occupancy.cells.chunks(row) {
        let Some(first) = cells.first() else { continue };
        // Writing to a String cannot fail.
        let _ = write!(picture, "{:<label$} ", first.first.to_string());
        picture.extend(cells.iter().map(letter));
        picture.push('\n');
    }
    let each = match occupancy.cell_bits {
        0 => "one address".to_owned(),
        bits @ 1..=20 => format!("{} addresses", 1_u32 << bits),
        bits => format!("2^{bits} addresses"),
    };
    let _ = writeln!(picture, "# all held  + more than half  - some  . none  x not handed out");
    let _ = writeln!(picture, "each character is {each}");
    picture
}

/// How many, as a person can read it: beyond 2^64 as a power of two, which `--json` has exactly.
pub(super) fn count(n: u128) -> String {
    if let Ok(n) = u64::try_from(n) {
        return n.to_string();
    }
    let bits = n.ilog2();
    if n.is_power_of_two() {
        return format!("2^{bits}");
    }
    // Tenths of a bit. Only the highest 52 bits count, which is all that a float has.
    let fraction = ((n >> (bits - 52)) as f64 / (1_u64 << 52) as f64).log2();
    let exponent = format!("{:.1}", f64::from(bits) + fraction);
    format!("about 2^{}", exponent.trim_end_matches(".0"))
}

/// Parts of an answer in as few lines of 80 columns as they need.
pub(super) fn lines(separator: &str, parts: &[String]) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for part in parts {
        let width = part.chars().count();
        if column > 0 && column + separator.len() + width <= COLUMNS {
            lines.push_str(separator);
            column += separator.len();
        } else if column > 0 {
            lines.push_str(separator.trim_end());
            lines.push('\n');
            column = 0;
        }
        lines.push_str(part);
        column += width;
    }
    lines.push('\n');
    lines
}

fn letter(cell: &Cell) -> char {
    match (cell.assignable, cell.held) {
        (0, _) if cell.strays > 0 => '-',
        (0, _) => 'x',
        (assignable, held) if held >= assignable => '#',
        (assignable, held) if held > assignable / 2 => '+',
        (_, 0) if cell.strays == 0 => '.',
        _ => '-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_powers_of_two() {
        for (n, text) in [
            (254, "254"),
            (u128::from(u64::MAX), "18446744073709551615"),
            (1 << 64, "2^64"),
            (u128::MAX, "about 2^128"),
            (3 << 126, "about 2^127.6"),
        ] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn parts_are_cut_between_and_never_inside() {
        let parts = |lengths: &[usize]| lengths.iter().map(|&length| "x".repeat(length)).collect::<Vec<_>>();
        assert_eq!(lines(", ", &parts(&[39, 39])).trim_end().len(), 80);
        let cut: Vec<usize> = lines(", ", &parts(&[39, 40, 90])).lines().map(str::len).collect();
        assert_eq!(cut, [40, 41, 90]);
    }
}
