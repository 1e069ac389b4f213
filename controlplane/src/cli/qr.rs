//! A QR code in the terminal.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;

/// Black on white, whatever the terminal's own colours are: not every scanner reads the inverse.
const BLACK_ON_WHITE: &str = "\u{1b}[30;107m";
const OWN_COLOURS: &str = "\u{1b}[0m";

/// Draws `text` with half blocks, dark on light and with its quiet zone.
pub(super) fn draw(text: &str) -> Result<String, QrError> {
    let mut drawn = QrCode::new(text)?.render::<Dense1x2>().build();
    drawn.push('\n');
    Ok(drawn)
}

/// Sets the colours of each line of a drawing, for a terminal.
pub(super) fn coloured(drawn: &str) -> String {
    drawn.lines().map(|line| format!("{BLACK_ON_WHITE}{line}{OWN_COLOURS}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels for each module; finders are not seen in smaller pictures.
    const SCALE: usize = 4;

    #[test]
    fn another_decoder_reads_what_is_drawn() {
        let text = "https://plane.example.org:8443/b/pob_X4O2lhVFhboMbkLRBNuqqknPnbEx3B4JLOYD";

        let drawn = draw(text).unwrap();

        let halves = |c: char| match c {
            ' ' => [false, false],
            '▀' => [true, false],
            '▄' => [false, true],
            '█' => [true, true],
            other => panic!("{other:?} is no half block"),
        };
        let rows: Vec<Vec<[bool; 2]>> =
            drawn.lines().map(|line| line.chars().map(halves).collect()).collect();
        let (width, height) = (rows[0].len() * SCALE, rows.len() * 2 * SCALE);
        let is_dark = |x: usize, y: usize| rows[y / SCALE / 2][x / SCALE][y / SCALE % 2];
        let mut picture = rqrr::PreparedImage::prepare_from_bitmap(width, height, is_dark);
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1);
        assert_eq!(grids[0].decode().unwrap().1, text);
    }

    #[test]
    fn colours_end_with_their_line() {
        assert_eq!(coloured("█ \n▀▄\n"), "\u{1b}[30;107m█ \u{1b}[0m\n\u{1b}[30;107m▀▄\u{1b}[0m\n");
    }
}
