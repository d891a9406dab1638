//! `SQLite` databases: schema and rows, wherever in the file they lie.
//!
//! The bytes are read from memory: no file is opened, nothing is written, and what a database defines beside its tables,
//! such as views and virtual tables, is never asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB};

use super::Precision::Double;
use super::report::{Finding, Report};
use super::table::{self, Cell, Row};

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where a file says who may read and write it: 2 if changes lie beside it for a while, which memory has no place for.
const VERSIONS: std::ops::Range<usize> = 18..20;
/// Where a file says in two bytes how long a page is, 1 for one more than fits in there.
const PAGE_BYTES: usize = 16;
/// Numbers that a program keeps in the header, by name and place.
const HEADER: [(&str, usize); 2] = [("user_version", 60), ("application_id", 68)];
/// So many cells of a database are held; one takes some 40 bytes.
const CELLS_MAX: usize = 8_000_000;
/// No single value may be longer.
const VALUE_MAX_BYTES: i32 = 256 * 1024 * 1024;
/// The library is asked to stop after so many of its steps, in thousands: more than reading the largest database takes.
const STEPS_MAX: u64 = 2_000_000;
const STEPS_AT_ONCE: i32 = 1000;

/// Returns whether bytes begin as a database does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Compares two databases; `None` if one of them is damaged or too large. The order of rows does not count.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    let (old, new) = (read(old).ok()??, read(new).ok()??);
    for (name, (before, after)) in HEADER.map(|(name, _)| name).iter().zip(old.header.iter().zip(&new.header)) {
        if before != after {
            report.differ(|| Finding::of(*name, Some(before.to_string()), Some(after.to_string())));
        }
    }
    for (name, before) in &old.schema {
        let after = new.schema.get(name);
        if after != Some(before) {
            report.differ(|| Finding::of(name.clone(), Some(before.clone()), after.cloned()));
        }
    }
    for (name, after) in new.schema.iter().filter(|(name, _)| !old.schema.contains_key(*name)) {
        report.differ(|| Finding::of(name.clone(), None, Some(after.clone())));
    }
    for (name, before) in &old.tables {
        let Some(after) = new.tables.get(name) else { continue };
        if before.columns == after.columns {
            report.inside(format!("table {name}"), |report| {
                table::compare(report, &before.columns, &before.rows, &after.rows, false);
            });
        }
    }
    Some(())
}

struct Database {
    header: [u32; HEADER.len()],
    /// What defines each thing, by kind and name.
    schema: BTreeMap<String, String>,
    tables: BTreeMap<String, Table>,
}

struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell<'static>>>,
}

impl Row for Vec<Cell<'static>> {
    fn cells(&self) -> Vec<Cell<'_>> {
        self.clone()
    }
}

/// Returns the database, or `None` if it is too large or no such thing.
fn read(bytes: &[u8]) -> Result<Option<Database>, rusqlite::Error> {
    let number = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    let [Some(user_version), Some(application_id)] = HEADER.map(|(_, at)| number(at)) else { return Ok(None) };
    // One that is broken off would be filled up with nothing.
    let page_bytes = match number(PAGE_BYTES).map(|word| word >> 16) {
        Some(1) => 1 << 16,
        Some(page_bytes) => usize::try_from(page_bytes).unwrap_or(0),
        None => 0,
    };
    if page_bytes == 0 || !bytes.len().is_multiple_of(page_bytes) {
        return Ok(None);
    }
    let mut connection = Connection::open_in_memory()?;
    let readable = bytes[..VERSIONS.start].chain(&[1, 1][..]).chain(&bytes[VERSIONS.end..]);
    connection.deserialize_read_exact(MAIN_DB, readable, bytes.len(), true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX_BYTES)?;
    let steps = AtomicU64::new(0);
    connection.progress_handler(STEPS_AT_ONCE, Some(move || steps.fetch_add(1, Ordering::Relaxed) > STEPS_MAX))?;
    let mut database =
        Database { header: [user_version, application_id], schema: BTreeMap::new(), tables: BTreeMap::new() };
    let mut names = Vec::new();
    {
        let mut statement = connection.prepare("SELECT type, name, sql, rootpage FROM sqlite_schema")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
            // What `ANALYZE` found says nothing that the rows do not.
            if name.starts_with("sqlite_stat") {
                continue;
            }
            let sql: Option<String> = row.get(2)?;
            let page: Option<i64> = row.get(3)?;
            database.schema.insert(format!("{kind} {name}"), sql.unwrap_or_default());
            if kind == "table" && page.unwrap_or_default() > 0 {
                names.push(name);
            }
        }
    }
    let mut cells = 0;
    for name in names {
        let Some(table) = read_table(&connection, &name, &mut cells)? else { return Ok(None) };
        database.tables.insert(name, table);
    }
    Ok(Some(database))
}

fn read_table(connection: &Connection, name: &str, cells: &mut usize) -> Result<Option<Table>, rusqlite::Error> {
    let mut statement = connection.prepare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut all = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        *cells += columns.len();
        if *cells > CELLS_MAX {
            return Ok(None);
        }
        all.push(
            (0..columns.len()).map(|index| Ok(cell(row.get_ref(index)?))).collect::<Result<_, rusqlite::Error>>()?,
        );
    }
    Ok(Some(Table { columns, rows: all }))
}

fn cell(value: ValueRef<'_>) -> Cell<'static> {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Whole(value.into()),
        ValueRef::Real(value) => Cell::Float(value, Double),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Cell::Text(Cow::Owned(text.to_owned())),
            Err(_) => Cell::Bytes(Cow::Owned(text.to_owned())),
        },
        ValueRef::Blob(bytes) => Cell::Bytes(Cow::Owned(bytes.to_owned())),
    }
}
