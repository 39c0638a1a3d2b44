//! A small font for the labels of sheets. Each letter is drawn below, as seven rows of five
//! columns; letters with descenders are shifted down by two rows.

use image::{Rgb, RgbImage};

const COLUMNS: u32 = 5;
const ROWS: u32 = 7;
/// Letters with descenders.
const LOW: &str = "gpqy";
/// Number of rows by which these letters are shifted down.
const DEPTH: u32 = 2;
/// Side of a dot of a letter, in pixels.
const DOT: u32 = 2;
/// Distance between the left edges of adjacent letters, in pixels.
const STEP: u32 = (COLUMNS + 1) * DOT;
/// Height of a line, in pixels.
pub(crate) const LINE: u32 = (ROWS + DEPTH) * DOT;
const INK: Rgb<u8> = Rgb([30, 30, 30]);
/// Marks where text was cut off.
const CUT: &str = "...";

/// Writes a line of text with its top left corner at `(x, y)`, clipped to the picture. If it is
/// wider than `most` pixels, its beginning is left out, because paths differ at their ends.
/// Characters that are not in the font become question marks.
pub(crate) fn write(on: &mut RgbImage, text: &str, (x, y): (u32, u32), most: u32) {
    for (letter, left) in shortened(text, most).chars().zip((x..).step_by(STEP as usize)) {
        let lowered = if LOW.contains(letter) { DEPTH } else { 0 };
        for (row, line) in (lowered..).zip(drawing(letter).split('/')) {
            for (column, _) in (0..).zip(line.chars()).filter(|(_, dot)| *dot == '#') {
                dot(on, left + column * DOT, y + row * DOT);
            }
        }
    }
}

fn shortened(text: &str, most: u32) -> String {
    let fits = (most / STEP) as usize;
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= fits {
        return text.to_owned();
    }
    let kept = fits.saturating_sub(CUT.len());
    CUT.chars().take(fits).chain(letters[letters.len() - kept..].iter().copied()).collect()
}

fn dot(on: &mut RgbImage, left: u32, top: u32) {
    for (x, y) in (0..DOT).flat_map(|dx| (0..DOT).map(move |dy| (left + dx, top + dy))) {
        if let Some(pixel) = on.get_pixel_mut_checked(x, y) {
            *pixel = INK;
        }
    }
}

fn drawing(letter: char) -> &'static str {
    let of = |wanted: char| LETTERS.iter().find(|(letter, _)| *letter == wanted);
    of(letter).or_else(|| of('?')).map_or("", |(_, drawing)| drawing)
}

const LETTERS: &[(char, &str)] = &[
    (' ', "...../...../...../...../...../...../....."),
    ('%', "##..#/##.#./...#./..#../.#.../.#.##/#..##"),
    ('&', ".##../#..#./#..#./.##../#.#.#/#..#./.##.#"),
    ('(', "...#./..#../.#.../.#.../.#.../..#../...#."),
    (')', ".#.../..#../...#./...#./...#./..#../.#..."),
    ('+', "...../..#../..#../#####/..#../..#../....."),
    (',', "...../...../...../...../.##../..#../.#..."),
    ('-', "...../...../...../#####/...../...../....."),
    ('.', "...../...../...../...../...../.##../.##.."),
    ('/', "....#/....#/...#./..#../.#.../#..../#...."),
    ('0', ".###./#...#/#..##/#.#.#/##..#/#...#/.###."),
    ('1', "..#../.##../..#../..#../..#../..#../.###."),
    ('2', ".###./#...#/....#/..##./.#.../#..../#####"),
    ('3', ".###./#...#/....#/..##./....#/#...#/.###."),
    ('4', "...#./..##./.#.#./#..#./#####/...#./...#."),
    ('5', "#####/#..../####./....#/....#/#...#/.###."),
    ('6', ".###./#..../#..../####./#...#/#...#/.###."),
    ('7', "#####/....#/...#./..#../..#../.#.../.#..."),
    ('8', ".###./#...#/#...#/.###./#...#/#...#/.###."),
    ('9', ".###./#...#/#...#/.####/....#/....#/.###."),
    (':', "...../.##../.##../...../.##../.##../....."),
    (';', "...../.##../.##../...../.##../..#../.#..."),
    ('=', "...../...../#####/...../#####/...../....."),
    ('?', ".###./#...#/....#/..##./..#../...../..#.."),
    ('A', ".###./#...#/#...#/#####/#...#/#...#/#...#"),
    ('B', "####./#...#/#...#/####./#...#/#...#/####."),
    ('C', ".###./#...#/#..../#..../#..../#...#/.###."),
    ('D', "####./#...#/#...#/#...#/#...#/#...#/####."),
    ('E', "#####/#..../#..../####./#..../#..../#####"),
    ('F', "#####/#..../#..../####./#..../#..../#...."),
    ('G', ".###./#...#/#..../#.###/#...#/#...#/.####"),
    ('H', "#...#/#...#/#...#/#####/#...#/#...#/#...#"),
    ('I', ".###./..#../..#../..#../..#../..#../.###."),
    ('J', "....#/....#/....#/....#/....#/#...#/.###."),
    ('K', "#...#/#..#./#.#../##.../#.#../#..#./#...#"),
    ('L', "#..../#..../#..../#..../#..../#..../#####"),
    ('M', "#...#/##.##/#.#.#/#.#.#/#...#/#...#/#...#"),
    ('N', "#...#/##..#/##..#/#.#.#/#..##/#..##/#...#"),
    ('O', ".###./#...#/#...#/#...#/#...#/#...#/.###."),
    ('P', "####./#...#/#...#/####./#..../#..../#...."),
    ('Q', ".###./#...#/#...#/#...#/#.#.#/#..#./.##.#"),
    ('R', "####./#...#/#...#/####./#.#../#..#./#...#"),
    ('S', ".####/#..../#..../.###./....#/....#/####."),
    ('T', "#####/..#../..#../..#../..#../..#../..#.."),
    ('U', "#...#/#...#/#...#/#...#/#...#/#...#/.###."),
    ('V', "#...#/#...#/#...#/#...#/.#.#./.#.#./..#.."),
    ('W', "#...#/#...#/#...#/#.#.#/#.#.#/##.##/#...#"),
    ('X', "#...#/#...#/.#.#./..#../.#.#./#...#/#...#"),
    ('Y', "#...#/#...#/.#.#./..#../..#../..#../..#.."),
    ('Z', "#####/....#/...#./..#../.#.../#..../#####"),
    ('_', "...../...../...../...../...../...../#####"),
    ('a', "...../...../.###./....#/.####/#...#/.####"),
    ('b', "#..../#..../####./#...#/#...#/#...#/####."),
    ('c', "...../...../.####/#..../#..../#..../.####"),
    ('d', "....#/....#/.####/#...#/#...#/#...#/.####"),
    ('e', "...../...../.###./#...#/#####/#..../.####"),
    ('f', "..##./.#.../####./.#.../.#.../.#.../.#..."),
    ('g', ".####/#...#/#...#/#...#/.####/....#/.###."),
    ('h', "#..../#..../####./#...#/#...#/#...#/#...#"),
    ('i', "..#../...../.##../..#../..#../..#../.###."),
    ('j', "...#./...../..##./...#./...#./...#./.##.."),
    ('k', "#..../#..../#..#./#.#../##.../#.#../#..#."),
    ('l', ".##../..#../..#../..#../..#../..#../.###."),
    ('m', "...../...../####./#.#.#/#.#.#/#.#.#/#.#.#"),
    ('n', "...../...../####./#...#/#...#/#...#/#...#"),
    ('o', "...../...../.###./#...#/#...#/#...#/.###."),
    ('p', "####./#...#/#...#/#...#/####./#..../#...."),
    ('q', ".####/#...#/#...#/#...#/.####/....#/....#"),
    ('r', "...../...../#.##./##..#/#..../#..../#...."),
    ('s', "...../...../.####/#..../.###./....#/####."),
    ('t', ".#.../.#.../####./.#.../.#.../.#.../..##."),
    ('u', "...../...../#...#/#...#/#...#/#...#/.####"),
    ('v', "...../...../#...#/#...#/#...#/.#.#./..#.."),
    ('w', "...../...../#.#.#/#.#.#/#.#.#/#.#.#/.#.#."),
    ('x', "...../...../#...#/.#.#./..#../.#.#./#...#"),
    ('y', "#...#/#...#/#...#/#...#/.####/....#/.###."),
    ('z', "...../...../#####/...#./..#../.#.../#####"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn letters_are_complete_and_differ() {
        for (letter, drawing) in LETTERS {
            let rows: Vec<&str> = drawing.split('/').collect();
            assert_eq!(rows.len(), ROWS as usize, "{letter}");
            assert!(rows.iter().all(|row| row.len() == COLUMNS as usize), "{letter}");
        }
        let drawings: BTreeSet<&str> = LETTERS.iter().map(|(_, drawing)| *drawing).collect();
        assert_eq!(drawings.len(), LETTERS.len());
        for letter in ('a'..='z').chain('A'..='Z').chain('0'..='9').chain(" -_./:%".chars()) {
            assert!(LETTERS.iter().any(|(known, _)| *known == letter), "{letter}");
        }
        assert_eq!(drawing('é'), drawing('?'));
    }

    #[test]
    fn long_lines_keep_their_end() {
        assert_eq!(shortened("runs/a", 6 * STEP), "runs/a");
        assert_eq!(shortened("a/long/path", 8 * STEP + 1), ".../path");
        assert_eq!(shortened("a/long/path", 2 * STEP), "..");
        assert_eq!(shortened("ab", 0), "");
    }

    #[test]
    fn dots_are_where_the_letter_has_them() {
        let mut picture = RgbImage::from_pixel(30, 20, Rgb([255; 3]));
        write(&mut picture, "L", (3, 2), 30);
        let inked = picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel == INK);
        let places: BTreeSet<(u32, u32)> = inked.map(|(x, y, _)| (x, y)).collect();
        let dots = 7 + 4; // the vertical stroke and the foot
        assert_eq!(places.len() as u32, dots * DOT * DOT);
        assert!(places.contains(&(3, 2)) && places.contains(&(3 + 9, 2 + 13)));
        assert_eq!(write_and_end("g") - write_and_end("G"), DEPTH * DOT);
        write(&mut picture, "beyond the edge", (20, 15), 300); // no panic
    }

    /// Returns the lowest pixel row of a text, after asserting that it is within the line.
    fn write_and_end(text: &str) -> u32 {
        let mut picture = RgbImage::from_pixel(60, 40, Rgb([255; 3]));
        write(&mut picture, text, (0, 0), 60);
        let inked = picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel == INK);
        let end = inked.map(|(_, y, _)| y).max().unwrap();
        assert!(end < LINE);
        end
    }
}
