//! `pv schema`: the JSON schema of the definition.

use super::Global;
use super::fail::CliError;
use super::ui::Ui;

/// Print the JSON schema of `.pipeline/pipeline.yaml`, for editors
///
/// Point your editor's YAML support at a file with this in it, and it completes
/// and checks the definition while you write.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(ui: &mut Ui, _global: &Global, _args: &Args) -> Result<u8, CliError> {
    let schema = serde_json::to_string_pretty(&crate::pipeline::schema()).expect("a schema has text keys only");
    ui.out(&(schema + "\n"))?;
    Ok(0)
}
