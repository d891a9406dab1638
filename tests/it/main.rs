//! What a user sees: output, errors, exit codes, files. One binary, one sandbox a test.

#![expect(clippy::disallowed_methods, reason = "tests start programs and write files directly")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod architecture;
mod audit;
mod bad_input;
mod checkout;
mod choose;
mod cloud;
mod compare;
mod damaged_records;
mod data;
mod depends;
mod diff;
mod environments;
mod examples;
mod fault;
mod fsck;
mod fuzz;
mod gc;
mod git_link;
mod hooks;
mod identity;
mod images;
mod imports;
mod incremental;
mod isolation;
mod keep;
mod laws;
mod lesson;
mod network;
mod nondet;
mod observer;
mod plain;
mod python;
mod reclaim;
mod records;
mod report;
mod robustness;
mod run;
mod run_together;
mod sandbox;
mod schedule;
mod seeds;
mod shell;
mod ssh;
mod stat_cache;
mod status;
mod stock;
mod store;
mod stored;
mod training;
mod transfer;
mod travel;
mod verify;
mod why;
