//! Parquet files: schema and rows, however they are grouped, encoded and compressed.

use std::borrow::Cow;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::printer::print_schema;

use super::Precision::{Double, Half, Single};
use super::foreign;
use super::report::{Finding, Report};
use super::table::{self, Cell};

const MAGIC: &[u8] = b"PAR1";
/// So many cells of a file are held; one takes some 50 bytes.
const CELLS_MAX: i64 = 8_000_000;

/// Returns whether bytes begin and end as such a file does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.len() > 12 && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC)
}

/// Compares two files; `None` if one of them is damaged or too large. Who wrote them and what else they say of themselves does not count.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    let (old, new) = (foreign(|| read(old))?, foreign(|| read(new))?);
    if old.schema != new.schema {
        let differing = || old.schema.iter().filter(|line| !new.schema.contains(line)).cloned().collect::<Vec<_>>();
        let come = || new.schema.iter().filter(|line| !old.schema.contains(line)).cloned().collect::<Vec<_>>();
        let told = |lines: Vec<String>| (!lines.is_empty()).then(|| lines.join(" "));
        report.differ(|| Finding::of("schema", told(differing()), told(come())));
    }
    if old.columns != new.columns {
        let told = |columns: &[String]| Some(columns.join(", "));
        report.differ(|| Finding::of("columns", told(&old.columns), told(&new.columns)));
        return Some(());
    }
    table::compare(report, &old.columns, &old.rows, &new.rows, true);
    Some(())
}

struct File {
    /// One line for each column and group.
    schema: Vec<String>,
    columns: Vec<String>,
    rows: Vec<Vec<Cell<'static>>>,
}

fn read(bytes: &[u8]) -> Option<File> {
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
    let schema = String::from_utf8(printed).ok()?.lines().skip(1).map(|line| line.trim().to_owned()).collect();
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
