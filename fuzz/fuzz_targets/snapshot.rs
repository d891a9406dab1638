#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pv::object::fuzz::snapshot(bytes));
