//! A picture of a range's occupancy: one character for each cell, readable in 80 columns and without colour.

use std::fmt::Write;

use whereabouts_engine::{Cell, Family, Occupancy};

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
        0 => "each character is one address".to_owned(),
        bits => format!("each character is {} addresses", 1_u128 << bits),
    };
    let _ = writeln!(picture, "# held  + more than half  - some  . free  x not handed out; {each}");
    picture
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
