//! `repair`: open a frozen space of a cluster again.
//!
//! Each node puts back what its ledger proves and reports; when all have reported, or are known to be gone for good, the
//! space is opened in a new epoch.

use std::collections::BTreeSet;

use serde_json::json;
use whereabouts_engine::{Contradiction, HANDED_OVER, Reinserted, Space};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::repair_local::repair_local;
use super::settings::Settings;
use super::typed::Repair;
use crate::stores::kubernetes::{Frozen, KubernetesHost, Opened, RESTORED};

pub(super) fn repair(typed: &Repair, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    if typed.local {
        return repair_local(settings, output);
    }
    let host = settings.cluster()?;
    let Frozen { spaces: mut frozen, unreadable } = host.frozen_spaces()?;
    for error in &unreadable {
        output.error(&format!("stepped over what cannot be read: {error}"));
    }
    let exit = if unreadable.is_empty() { Exit::Success } else { Exit::Unsound };
    frozen.retain(|(space, reason)| {
        let is_handed_over = reason == HANDED_OVER;
        if is_handed_over {
            output.warn(stays(space));
        }
        !is_handed_over
    });
    if typed.restored {
        let all = host.freeze_restored()?;
        frozen.extend(all.into_iter().map(|space| (space, RESTORED.to_owned())));
    }
    if frozen.is_empty() {
        output.note("no space is frozen");
        return Ok(exit);
    }
    let mut is_contradicted = false;
    for (space, reason) in &frozen {
        let reinserted = host.reinsert(space)?;
        is_contradicted |= reinserted.knows_nothing || !reinserted.contradictions.is_empty();
        output.answer(|| report_json(space, reason, &reinserted), || report(space, reason, &reinserted))?;
    }
    if typed.open {
        let lost: BTreeSet<String> = typed.lost.iter().cloned().collect();
        let opened = open(&host, frozen.into_iter().map(|(space, _)| space), &lost, output)?;
        return Ok(if opened == Exit::Success { exit } else { opened });
    }
    output.note("run this on every node; then, once, with --open");
    Ok(if is_contradicted { Exit::Unsound } else { exit })
}

fn open(
    host: &KubernetesHost,
    spaces: impl Iterator<Item = Space>,
    lost: &BTreeSet<String>,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Success;
    for space in spaces {
        match host.open_again(&space, lost)? {
            Opened::Yes => output.answer(
                || json!({ "space": space.to_string(), "opened": true }),
                || format!("{space} is open again\n"),
            )?,
            // It happened while this was under way.
            Opened::Never => {
                exit = Exit::Unsound;
                output.warn(stays(&space));
            }
            Opened::Missing(nodes) => {
                exit = Exit::Unsound;
                let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
                output.answer(
                    || json!({ "space": space.to_string(), "opened": false, "missing": names }),
                    || {
                        format!(
                            "{space} stays frozen: {} have not reported; run `whereabouts repair` there, or, for those \
                             that are gone for good, add --lost NAME\n",
                            names.join(", ")
                        )
                    },
                )?;
            }
        }
    }
    Ok(exit)
}

/// What is said of a space that no repair opens.
fn stays(space: &Space) -> String {
    format!("{space} stays frozen: {HANDED_OVER}; see \"Going back\" in the README")
}

fn report(space: &Space, reason: &str, reinserted: &Reinserted) -> String {
    let mut text = format!("{space} is frozen: {reason}\n");
    for address in &reinserted.put_back {
        text.push_str(&format!("  put back {address}\n"));
    }
    for Contradiction { address, here, there } in &reinserted.contradictions {
        text.push_str(&format!(
            "  {address}: this host proves that {here} has it, and the cluster says {there}; delete the one that is here\n"
        ));
    }
    text.push_str(match (reinserted.knows_nothing, reinserted.contradictions.is_empty()) {
        (true, _) => {
            "  not reported: the cluster says that this node holds addresses, and its ledger knows of none; run this as the \
             plugin runs, with its --data-dir and NODENAME, or, if the ledger is gone and no container runs here, name \
             this node with --lost\n"
        }
        (false, false) => "  not reported: run this again when each of these addresses has one holder\n",
        (false, true) => "  reported\n",
    });
    text
}

fn report_json(space: &Space, reason: &str, reinserted: &Reinserted) -> serde_json::Value {
    let contradictions: Vec<_> = reinserted
        .contradictions
        .iter()
        .map(|Contradiction { address, here, there }| {
            json!({ "address": address.to_string(), "here": here.to_string(), "there": there.to_string() })
        })
        .collect();
    let put_back: Vec<String> = reinserted.put_back.iter().map(ToString::to_string).collect();
    json!({ "space": space.to_string(), "reason": reason, "putBack": put_back, "contradictions": contradictions,
            "reported": !reinserted.knows_nothing && reinserted.contradictions.is_empty() })
}
