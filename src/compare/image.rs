//! Images: the pixels, not how they are compressed nor what is said of them.

use std::io::Cursor;

use png::{Decoder, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::foreign::foreign;
use super::number::Difference;
use super::report::{Finding, Report};

/// So many bytes of pixels are held.
const PIXELS_MAX_BYTES: usize = 256 * 1024 * 1024;
const SIDE_MAX: usize = 1 << 15;

/// Returns whether bytes begin as a PNG file does.
pub(super) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Returns whether bytes begin as a JPEG file does.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// An image, row by row.
struct Image {
    width: usize,
    height: usize,
    /// How many numbers a pixel has, and how many bytes one of them.
    channels: usize,
    depth: usize,
    pixels: Vec<u8>,
}

/// Compares two PNG files; `None` if one of them cannot be decoded.
pub(super) fn compare_png(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    compare(report, &foreign(|| read_png(old))?, &foreign(|| read_png(new))?);
    Some(())
}

/// Compares two JPEG files; `None` if one of them cannot be decoded.
pub(super) fn compare_jpeg(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    compare(report, &foreign(|| read_jpeg(old))?, &foreign(|| read_jpeg(new))?);
    Some(())
}

fn compare(report: &mut Report, old: &Image, new: &Image) {
    let about = |image: &Image| {
        let Image { width, height, channels, depth, .. } = image;
        format!("{width} x {height}, {channels} channels of {} bits", depth * 8)
    };
    if about(old) != about(new) {
        return report.differ(|| Finding::of("image", Some(about(old)), Some(about(new))));
    }
    let bytes = old.channels * old.depth;
    if bytes == 0 {
        return;
    }
    let pixels = old.pixels.chunks_exact(bytes).zip(new.pixels.chunks_exact(bytes));
    for (index, (before, after)) in pixels.enumerate() {
        if before == after {
            report.same_numbers(old.channels as u64);
            continue;
        }
        let numbers = |pixel: &[u8]| -> Vec<u16> {
            let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
            pixel.chunks(old.depth).map(number).collect()
        };
        let (before, after) = (numbers(before), numbers(after));
        let place = || format!("pixel ({}, {})", index % old.width, index / old.width);
        let finding = || Finding::of(place(), Some(format!("{before:?}")), Some(format!("{after:?}")));
        // A pixel is one place, however many of its numbers differ.
        let mut is_told = false;
        for (a, b) in before.iter().zip(&after) {
            if a == b {
                report.same_numbers(1);
            } else if is_told {
                report.number_at_same_place(Difference::whole((*a).into(), (*b).into()));
            } else {
                report.number(Difference::whole((*a).into(), (*b).into()), finding);
                is_told = true;
            }
        }
    }
}

fn read_png(bytes: &[u8]) -> Option<Image> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: PIXELS_MAX_BYTES });
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    let mut reader = decoder.read_info().ok()?;
    // Of an animation only the first picture would be seen.
    if reader.info().is_animated() {
        return None;
    }
    let size = reader.output_buffer_size().filter(|size| *size <= PIXELS_MAX_BYTES)?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).ok()?;
    pixels.truncate(info.buffer_size());
    let (width, height) = (usize::try_from(info.width).ok()?, usize::try_from(info.height).ok()?);
    let depth = if info.bit_depth == png::BitDepth::Sixteen { 2 } else { 1 };
    Some(Image { width, height, channels: info.color_type.samples(), depth, pixels })
}

fn read_jpeg(bytes: &[u8]) -> Option<Image> {
    let options = DecoderOptions::default().set_max_width(SIDE_MAX).set_max_height(SIDE_MAX);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let (width, height) = decoder.dimensions()?;
    let channels = decoder.output_colorspace()?.num_components();
    let size = width.checked_mul(height)?.checked_mul(channels)?;
    if size > PIXELS_MAX_BYTES {
        return None;
    }
    let pixels = decoder.decode().ok()?;
    (pixels.len() == size).then_some(Image { width, height, channels, depth: 1, pixels })
}
