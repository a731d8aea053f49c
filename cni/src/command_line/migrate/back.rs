//! `migrate --back`: the Go plugin gives the addresses away again.

use serde_json::{Value, json};

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::super::typed::Migrate;
use super::{finding_json, finding_text, keep_out, of_network};
use crate::stores::kubernetes::{Exempt, Fate, KubernetesHost, ReturnedPool, WayBack};

/// What is to be done when it is done.
const NEXT: &str = "put the Go plugin's binary in place of this one on every node now: until then no pod gets an address; \
     what is deleted meanwhile stays in its pools until its reconciler looks";

pub(super) fn go_back(typed: &Migrate, host: &KubernetesHost, output: &Output) -> Result<Exit, Failure> {
    if host.is_back()? {
        let was_fenced = if typed.dry_run || typed.fenced { false } else { host.lower_fence()? };
        output.answer(
            || json!({ "back": true, "isBackAlready": true, "unfenced": was_fenced }),
            || "everything went back to the Go plugin before: nothing was changed\n".to_owned(),
        )?;
        return Ok(Exit::Success);
    }
    // What does not fit is better known before anybody has to wait.
    let before = host.plan_way_back(typed.make_pools)?;
    if typed.dry_run {
        tell(typed, &before, output)?;
        return Ok(exit(&before));
    }
    if before.is_refused() {
        tell(typed, &before, output)?;
        return Err(Failure::new(Exit::Unsound, "there is no going back as it is; nothing was written"));
    }
    keep_out(typed, host, Exempt::Ourselves, output)?;
    host.hand_over()?;
    output.note("all spaces are frozen: nobody is given an address here any more");
    let done = host.go_back(typed.make_pools)?;
    tell(typed, &done, output)?;
    if done.is_refused() {
        return Err(Failure::new(
            Exit::Unsound,
            "there is no going back as it is; the fence is up, and all spaces are frozen: see to what is named, and run \
             this again",
        ));
    }
    if typed.fenced {
        output.note("the fence is yours (--fenced): give the Go plugin its rights again");
    } else {
        host.lower_fence()?;
        output.note("the fence is gone: the Go plugin may write to its pools again");
    }
    output.note(NEXT);
    Ok(exit(&done))
}

fn exit(plan: &WayBack) -> Exit {
    if plan.is_refused() || plan.count(Fate::Quarantined) > 0 { Exit::Unsound } else { Exit::Success }
}

fn tell(typed: &Migrate, plan: &WayBack, output: &Output) -> Result<(), Failure> {
    // What is refused is not written, whatever was asked for.
    let is_done = !typed.dry_run && !plan.is_refused();
    output.answer(|| report_json(is_done, plan), || report(is_done, plan))
}

fn report(is_done: bool, plan: &WayBack) -> String {
    let mut text = String::new();
    for pool in &plan.pools {
        text.push_str(&pool_line(is_done, pool));
    }
    text.extend(plan.findings.iter().map(finding_text));
    let be = if is_done { "" } else { " would be" };
    let (made, changed, deleted) = plan.reservation_counts();
    text.push_str(&format!("reservations: {made}{be} made, {changed}{be} changed, {deleted}{be} deleted\n"));
    let frozen = if is_done { "frozen" } else { "to be frozen" };
    for (space, n_held) in &plan.spaces {
        text.push_str(&format!("{space}: {n_held} held, {frozen}\n"));
    }
    let count = |fate| plan.count(fate);
    text.push_str(&format!(
        "{} quarantined, {} without a place, {} written since they were imported\n",
        count(Fate::Quarantined),
        count(Fate::Unfit),
        count(Fate::Changed)
    ));
    text
}

fn pool_line(is_done: bool, pool: &ReturnedPool) -> String {
    let be = if is_done { "" } else { " would be" };
    let network = of_network(Some(pool.space.network().as_str()));
    let ReturnedPool { name, range, n_added, n_changed, n_removed, .. } = pool;
    let mut line = format!(
        "pool {name} ({range} {network}): {} addresses, {n_added}{be} added, {n_changed}{be} changed, {n_removed}{be} removed",
        pool.n_allocations()
    );
    if pool.is_new() {
        line.push_str(if is_done { "; made" } else { "; would be made" });
    }
    line.push('\n');
    line
}

fn report_json(is_done: bool, plan: &WayBack) -> Value {
    let pools: Vec<Value> = plan
        .pools
        .iter()
        .map(|pool| {
            json!({
                "name": pool.name, "network": pool.space.network().as_str(), "range": pool.range,
                "private": pool.space.private_cidr().is_some(), "made": pool.is_new(),
                "allocations": pool.n_allocations(), "added": pool.n_added, "changed": pool.n_changed,
                "removed": pool.n_removed,
            })
        })
        .collect();
    let findings: Vec<Value> = plan.findings.iter().map(finding_json).collect();
    let spaces: Vec<Value> = plan
        .spaces
        .iter()
        .map(|(space, n_held)| {
            json!({ "space": space.to_string(), "network": space.network().as_str(), "held": n_held })
        })
        .collect();
    let (made, changed, deleted) = plan.reservation_counts();
    json!({
        "back": is_done, "pools": pools, "findings": findings, "spaces": spaces,
        "reservations": { "made": made, "changed": changed, "deleted": deleted },
    })
}
