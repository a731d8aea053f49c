//! `verify`: walk through the whole ledger and say what disagrees.

use serde_json::json;
use whereabouts_engine::Access;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::settings::{Settings, Source};

pub(super) fn verify(settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let source = settings.source(Access::Read, output)?;
    let progress = output.progress("verifying", None);
    let verified = match source {
        Source::Host(mut ledger) => ledger.verify()?,
        Source::Cluster(host) => host.verify()?,
    };
    progress.finish_and_clear();
    let disagreements: Vec<String> = verified.disagreements.iter().map(ToString::to_string).collect();
    output.answer(
        || json!({ "rows": verified.n_rows, "held": verified.n_held, "disagreements": disagreements }),
        || {
            let lines: String = disagreements.iter().map(|line| format!("{line}\n")).collect();
            let result = if disagreements.is_empty() { "sound" } else { "unsound" };
            format!("{lines}{result}: {} rows, {} addresses held\n", verified.n_rows, verified.n_held)
        },
    )?;
    Ok(if disagreements.is_empty() { Exit::Success } else { Exit::Unsound })
}
