//! Arrow files, which are those of Feather too: schema and rows, however they are batched and compressed.

use std::borrow::Cow;
use std::io::Cursor;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef};
use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Schema};

use super::Precision::{Double, Half, Single};
use super::foreign::foreign;
use super::packed::MEMBER_MAX_BYTES;
use super::report::Report;
use super::table::{self, Cell, File};

const MAGIC: &[u8] = b"ARROW1";
/// So many cells of a file are held; one takes some 50 bytes.
const CELLS_MAX: usize = 8_000_000;
/// So many items of a list are told.
const ITEMS_MAX: usize = 1000;
/// How deep lists and groups may be nested.
const DEPTH_MAX: usize = 16;

/// Returns whether bytes begin and end as such a file does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.len() > 2 * MAGIC.len() && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC)
}

/// Compares two files; `None` if one of them is damaged, too large, or has things in it that are not known here.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    table::compare_files(report, &foreign(|| read(old))?, &foreign(|| read(new))?);
    Some(())
}

/// Returns whether what a file says of its own size can be: whoever reads it takes memory for as much before looking.
fn is_bounded(bytes: &[u8]) -> Option<bool> {
    let end = bytes.len().checked_sub(MAGIC.len() + 4)?;
    let length = usize::try_from(i32::from_le_bytes(bytes.get(end..end + 4)?.try_into().ok()?)).ok()?;
    let footer = arrow_ipc::root_as_footer(bytes.get(end.checked_sub(length)?..end)?).ok()?;
    let blocks = footer.recordBatches().into_iter().flatten().chain(footer.dictionaries().into_iter().flatten());
    let mut unpacked_bytes = 0;
    for block in blocks {
        let start = usize::try_from(block.offset()).ok()?;
        let about = start.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
        let body = bytes.get(about..about.checked_add(usize::try_from(block.bodyLength()).ok()?)?)?;
        let about = bytes.get(start..about)?;
        // Newer files have a mark in front of the length.
        let message = about.strip_prefix(&[0xff; 4]).unwrap_or(about).get(4..)?;
        let message = arrow_ipc::root_as_message(message).ok()?;
        let batch = message.header_as_record_batch();
        let batch = batch.or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()))?;
        let is_long = |rows: i64| usize::try_from(rows).is_ok_and(|rows| rows > CELLS_MAX);
        if is_long(batch.length()) || batch.nodes().into_iter().flatten().any(|node| is_long(node.length())) {
            return Some(false);
        }
        for buffer in batch.buffers().into_iter().flatten() {
            let start = usize::try_from(buffer.offset()).ok()?;
            let packed = body.get(start..start.checked_add(usize::try_from(buffer.length()).ok()?)?)?;
            if batch.compression().is_some()
                && let Some(length) = packed.get(..8)
            {
                // Less than nothing says that it is not compressed after all.
                unpacked_bytes += u64::try_from(i64::from_le_bytes(length.try_into().ok()?)).unwrap_or(0);
            }
            if unpacked_bytes > MEMBER_MAX_BYTES {
                return Some(false);
            }
        }
    }
    Some(true)
}

fn read(bytes: &[u8]) -> Option<File> {
    if is_bounded(bytes) != Some(true) {
        return None;
    }
    let reader = FileReader::try_new(Cursor::new(bytes), None).ok()?;
    let schema = reader.schema();
    let (columns, lines) = describe(&schema);
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.ok()?;
        if (rows.len() + batch.num_rows()).checked_mul(columns.len())? > CELLS_MAX {
            return None;
        }
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|column| cell(column, row, 0)).collect::<Option<Vec<_>>>()?);
        }
    }
    Some(File { schema: lines, columns, rows })
}

fn describe(schema: &Schema) -> (Vec<String>, Vec<String>) {
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let line = |(name, kind, is_empty): (&String, String, bool)| {
        format!("{name}: {kind}{}", if is_empty { " or null" } else { "" })
    };
    let fields = schema.fields().iter();
    let lines = fields.map(|field| line((field.name(), field.data_type().to_string(), field.is_nullable())));
    (columns, lines.collect())
}

/// Returns what stands in a row of a column; `None` if it is of a kind that is not known here.
fn cell(column: &ArrayRef, row: usize, depth: usize) -> Option<Cell<'static>> {
    if depth > DEPTH_MAX {
        return None;
    }
    if column.is_null(row) || column.data_type() == &DataType::Null {
        return Some(Cell::Null);
    }
    let text = |text: &str| Cell::Text(Cow::Owned(text.to_owned()));
    let bytes = |bytes: &[u8]| Cell::Bytes(Cow::Owned(bytes.to_owned()));
    Some(match column.data_type() {
        DataType::Boolean => text(if column.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Float16 => Cell::Float(column.as_primitive::<Float16Type>().value(row).into(), Half),
        DataType::Float32 => Cell::Float(column.as_primitive::<Float32Type>().value(row).into(), Single),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row), Double),
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Binary => bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().value(row)),
        DataType::List(_) => items(&column.as_list::<i32>().value(row), depth)?,
        DataType::LargeList(_) => items(&column.as_list::<i64>().value(row), depth)?,
        DataType::FixedSizeList(..) => items(&column.as_fixed_size_list().value(row), depth)?,
        DataType::Struct(fields) => {
            let group = column.as_struct();
            let mut parts = Vec::new();
            for (field, column) in fields.iter().zip(group.columns()) {
                parts.push(format!("{}: {}", field.name(), cell(column, row, depth + 1)?.spelled()));
            }
            text(&format!("{{{}}}", parts.join(", ")))
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary_opt()?;
            let keys = dictionary.keys();
            let key = usize::try_from(whole(keys, row, keys.data_type())?).ok()?;
            (key < dictionary.values().len()).then(|| cell(dictionary.values(), key, depth + 1))??
        }
        kind => Cell::Whole(whole(column, row, kind)?),
    })
}

fn items(items: &ArrayRef, depth: usize) -> Option<Cell<'static>> {
    if items.len() > ITEMS_MAX {
        return None;
    }
    let mut parts = Vec::new();
    for index in 0..items.len() {
        parts.push(cell(items, index, depth + 1)?.spelled());
    }
    Some(Cell::Text(Cow::Owned(format!("[{}]", parts.join(", ")))))
}

/// Returns a whole number, a moment, a length of time or a decimal, as it is kept.
fn whole(column: &dyn Array, row: usize, kind: &DataType) -> Option<i128> {
    let width = kind.primitive_width().filter(|width| *width <= 16)?;
    let data = column.to_data();
    let start = data.offset().checked_add(row)?.checked_mul(width)?;
    let bytes = data.buffers().first()?.as_slice().get(start..start.checked_add(width)?)?;
    let is_negative = !kind.is_unsigned_integer() && bytes.last()? & 0x80 != 0;
    let mut word = [if is_negative { 0xff } else { 0 }; 16];
    word[..width].copy_from_slice(bytes);
    Some(i128::from_le_bytes(word))
}
