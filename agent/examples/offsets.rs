//! Where the Go runtime's fields are in executables with DWARF: `offsets PATH…` prints one line of JSON a path.
//! `cargo xtask offsets` makes agent/src/inspect/go/offsets.json of them.

use std::{env, fs, process::ExitCode};

use agent::inspect::go_fields;
use anyhow::{Context as _, Result};
use serde_json::json;

fn main() -> Result<ExitCode> {
    let mut failed = false;
    for path in env::args().skip(1) {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        match go_fields(&bytes) {
            Ok((version, fields)) => println!("{}", json!({"version": version.raw, "fields": fields})),
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}
