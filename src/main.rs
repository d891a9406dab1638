//! The `pv` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pv::cli::main()
}
