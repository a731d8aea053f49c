//! `repair --local`: put together again what of a host's own ledger cannot be read.

use serde_json::json;
use whereabouts_engine::{Create, RepairError};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::settings::Settings;

pub(super) fn repair_local(settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let repaired = settings.open(Create::Never)?.repair().map_err(|error| match error {
        RepairError::Ledger(error) => error.into(),
        error => Failure::new(Exit::Unsound, error),
    })?;
    let blocks: Vec<String> = repaired.blocks.iter().map(ToString::to_string).collect();
    let spaces: Vec<String> = repaired.spaces.iter().map(ToString::to_string).collect();
    let freed: Vec<String> = repaired.freed.iter().map(ToString::to_string).collect();
    output.answer(
        || json!({ "blocks": blocks, "spaces": spaces, "rows": repaired.n_rows, "freed": freed }),
        || {
            let blocks: String =
                blocks.iter().map(|id| format!("block {id} holds what the attachments say\n")).collect();
            let spaces: String = spaces.iter().map(|space| format!("the index of {space} fits its blocks\n")).collect();
            let rows = match repaired.n_rows {
                0 => String::new(),
                n_rows => format!("{n_rows} other rows mended or taken away\n"),
            };
            let freed: String =
                freed.iter().map(|address| format!("{address} is free, as an earlier call had wanted\n")).collect();
            let all = format!("{blocks}{spaces}{rows}{freed}");
            if all.is_empty() { "there was nothing to repair\n".to_owned() } else { all }
        },
    )?;
    Ok(Exit::Success)
}
