//! A QR code in the terminal.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;

/// Draws `text` with half blocks: light on dark and dark on light both scan, since the quiet zone
/// is drawn, too.
pub(super) fn draw(text: &str) -> Result<String, QrError> {
    let mut drawn = QrCode::new(text)?.render::<Dense1x2>().build();
    drawn.push('\n');
    Ok(drawn)
}
