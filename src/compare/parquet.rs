//! Parquet files: schema and rows, however they are grouped, encoded and compressed.

use std::borrow::Cow;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::printer::print_schema;

use super::Precision::{Double, Half, Single};
use super::foreign::foreign;
use super::report::Report;
use super::table::{self, Cell, File};

const MAGIC: &[u8] = b"PAR1";
/// So many cells of a file are held; one takes some 50 bytes.
const CELLS_MAX: i64 = 8_000_000;

/// How deep the schema may be nested.
const DEPTH_MAX: usize = 64;

/// Returns whether bytes begin and end as such a file does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.len() > 12 && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC)
}

/// Compares two files; `None` if one of them is damaged or too large. Who wrote them and what else they say of themselves does not count.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    table::compare_files(report, &foreign(|| read(old))?, &foreign(|| read(new))?);
    Some(())
}

fn read(bytes: &[u8]) -> Option<File> {
    // The reader follows the schema down without asking how deep it goes, and would run out of stack.
    if depth(bytes)? > DEPTH_MAX {
        return None;
    }
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).ok()?;
    let metadata = reader.metadata().file_metadata();
    let root = metadata.schema_descr().root_schema();
    let columns: Vec<String> = root.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let leaves = i64::try_from(metadata.schema_descr().num_columns()).ok()?;
    if metadata.num_rows().checked_mul(leaves)? > CELLS_MAX {
        return None;
    }
    let mut printed = Vec::new();
    print_schema(&mut printed, root);
    // The first line is what whoever wrote it calls a schema.
    let printed = String::from_utf8(printed).ok()?;
    let schema = printed.lines().skip(1).map(|line| line.trim().trim_end_matches(';').to_owned()).collect();
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).ok()? {
        rows.push(row.ok()?.into_columns().into_iter().map(|(_, field)| cell(field)).collect());
        if i64::try_from(rows.len()).ok()?.checked_mul(leaves)? > CELLS_MAX {
            return None;
        }
    }
    Some(File { schema, columns, rows })
}

fn cell(field: Field) -> Cell<'static> {
    match field {
        Field::Null => Cell::Null,
        Field::Byte(value) => Cell::Whole(value.into()),
        Field::Short(value) => Cell::Whole(value.into()),
        Field::Int(value) => Cell::Whole(value.into()),
        Field::Long(value) => Cell::Whole(value.into()),
        Field::UByte(value) => Cell::Whole(value.into()),
        Field::UShort(value) => Cell::Whole(value.into()),
        Field::UInt(value) => Cell::Whole(value.into()),
        Field::ULong(value) => Cell::Whole(value.into()),
        Field::Float16(value) => Cell::Float(value.into(), Half),
        Field::Float(value) => Cell::Float(value.into(), Single),
        Field::Double(value) => Cell::Float(value, Double),
        Field::Str(text) => Cell::Text(Cow::Owned(text)),
        Field::Bytes(bytes) => Cell::Bytes(Cow::Owned(bytes.data().to_owned())),
        // Moments, lists and groups as they are written out.
        other => Cell::Text(Cow::Owned(other.to_string())),
    }
}

/// Returns how deep the schema in the footer of a file is nested.
fn depth(bytes: &[u8]) -> Option<usize> {
    let end = bytes.len().checked_sub(MAGIC.len() + 4)?;
    let length = usize::try_from(u32::from_le_bytes(bytes.get(end..end + 4)?.try_into().ok()?)).ok()?;
    let mut footer = Thrift(bytes.get(end.checked_sub(length)?..end)?);
    let mut id = 0;
    while let Some(kind) = footer.field(&mut id)? {
        if id != SCHEMA {
            footer.skip(kind, 0)?;
            continue;
        }
        // How many children are still to come, of each group that is open.
        let mut open: Vec<u64> = Vec::new();
        let mut deepest = 0;
        for _ in 0..footer.list()?.0 {
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = footer.children()?;
            if children > 0 {
                open.push(children);
            }
            deepest = deepest.max(open.len());
            while open.last() == Some(&0) {
                open.pop();
            }
        }
        return Some(deepest);
    }
    None
}

/// The number of the schema among the fields of a footer, and that of the number of children among those of an element.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;

/// The encoding of a footer, as far as it takes to walk through it.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Returns the kind of the next field of a structure; inside `None` behind the last one. `id` becomes its number.
    #[expect(clippy::option_option, reason = "broken off is not the same as at its end")]
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header == 0 {
            return Some(None);
        }
        *id = match header >> 4 {
            0 => i64::try_from(self.number()? >> 1).ok()?,
            further => id.checked_add(i64::from(further))?,
        };
        Some(Some(header & 0xf))
    }

    /// Returns the length of a list, and the kind of its items.
    fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let length = if header >> 4 == 15 { self.number()? } else { u64::from(header >> 4) };
        Some((length, header & 0xf))
    }

    /// Returns how many children an element of a schema has, all of which is behind it then.
    fn children(&mut self) -> Option<u64> {
        let (mut id, mut children) = (0, 0);
        while let Some(kind) = self.field(&mut id)? {
            if id == CHILDREN && kind == 5 {
                children = self.number()? >> 1;
            } else {
                self.skip(kind, 0)?;
            }
        }
        Some(children)
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            // The value of a boolean is its kind.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.number()?),
            7 => self.0 = self.0.get(8..)?,
            8 => {
                let length = usize::try_from(self.number()?).ok()?;
                self.0 = self.0.get(length..)?;
            }
            9 | 10 => {
                let (length, kind) = self.list()?;
                for _ in 0..length {
                    // In a list each has a byte of its own.
                    self.skip(if matches!(kind, 1 | 2) { 3 } else { kind }, depth + 1)?;
                }
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use crate::compare::compare_bytes;
    use crate::pipeline::Level;

    /// A file whose schema is a group in a group and so on.
    fn nested(levels: u32, last: u8) -> Vec<u8> {
        let mut footer = vec![0x15, 2, 0x19, 0xfc];
        let mut rest = levels;
        while rest > 0x7f {
            footer.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        footer.push(u8::try_from(rest).unwrap());
        (0..levels).for_each(|_| footer.extend([0x48, 1, b'a', 0x15, 2, 0]));
        footer.extend([0x16, last, 0]);
        let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
        [b"PAR1", footer.as_slice(), &length, b"PAR1"].concat()
    }

    #[test]
    fn a_schema_that_goes_down_without_end_is_not_followed() {
        for levels in [10, 64, 65, 300_000] {
            let comparison = compare_bytes("x.parquet", &nested(levels, 2), &nested(levels, 4));
            assert_eq!((comparison.level, comparison.format), (Level::Different, "bytes"), "{comparison}");
        }
    }
}
