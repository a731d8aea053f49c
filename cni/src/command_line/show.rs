//! `show`: networks, ranges, leases, and how full a range is.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::json;
use whereabouts_engine::{Edges, Family, Holdings, Ledger, Network, Range, Space, View, ViewSpec};

use super::exit::{Exit, Failure};
use super::leases::{lease_json, lease_line, network_of, pools_in_use, range_of, tell_damage};
use super::output::Output;
use super::picture::{CELLS, count, lines, picture};
use super::settings::Settings;
use super::typed::{Show, Shown};

pub(super) fn show(typed: &Show, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let network = typed.network.as_deref().map(network_of).transpose()?;
    match Shown::from_str(&typed.what, true) {
        Ok(Shown::Leases) => {
            let range = typed.range.as_deref().map(range_of).transpose()?.map(|(_, range)| range);
            leases(settings.read(output)?, &Holdings { network, range }, output)
        }
        Ok(_) if typed.range.is_some() => {
            Err(Failure::usage("a range goes with `show leases`, or stands alone: `show 10.0.0.0/24`"))
        }
        Ok(Shown::Networks) => networks(settings.read(output)?, output),
        Ok(Shown::Ranges) => ranges(settings.read(output)?, network.as_ref(), output),
        Err(_) => {
            let (spec, range) = range_of(&typed.what).map_err(|failure| {
                let message = failure.message;
                Failure::usage(format_args!("show networks, ranges, leases or a range, not {}: {message}", typed.what))
            })?;
            one_range(&settings.read(output)?, network, spec, range, output)
        }
    }
}

fn networks(ledger: Ledger, output: &Output) -> Result<Exit, Failure> {
    let mut networks: BTreeMap<Network, (usize, u64)> = BTreeMap::new();
    let (pools, damage) = pools_in_use(ledger, None);
    let exit = tell_damage(&damage, output);
    for ((space, _), held) in pools {
        let (n_pools, n_held) = networks.entry(space.network().clone()).or_default();
        *n_pools += 1;
        *n_held += held;
    }
    for (network, (n_pools, n_held)) in &networks {
        output.answer(
            || json!({ "network": network.as_str(), "ranges": n_pools, "held": n_held }),
            || format!("{network}  {n_pools} ranges  {n_held} held\n"),
        )?;
    }
    if networks.is_empty() && damage.is_empty() {
        output.note("nothing is held");
    }
    Ok(exit)
}

fn ranges(ledger: Ledger, network: Option<&Network>, output: &Output) -> Result<Exit, Failure> {
    let (pools, damage) = pools_in_use(ledger, network);
    let exit = tell_damage(&damage, output);
    for ((space, cidr), held) in &pools {
        // What a configuration excludes is not in the ledger; without it, this many could be handed out at most.
        let assignable = View::new(&ViewSpec::new(*cidr))
            .or_else(|_| View::new(&ViewSpec { edges: Edges::Usable, ..ViewSpec::new(*cidr) }))
            .map_or(0, |view| view.count());
        let network = space.network();
        let of = if network.is_unnamed() { String::new() } else { format!("  network {network}") };
        let private = if space.private_cidr().is_some() { "  private" } else { "" };
        output.answer(
            || {
                json!({
                    "range": cidr.to_string(), "network": space.network().as_str(),
                    "private": space.private_cidr().is_some(), "held": held, "assignable": assignable.to_string(),
                })
            },
            || {
                let range = cidr.to_string();
                format!("{range:<18}  {held} of at most {} held{of}{private}\n", count(assignable))
            },
        )?;
    }
    if pools.is_empty() && damage.is_empty() {
        output.note("nothing is held");
    }
    Ok(exit)
}

fn leases(ledger: Ledger, asked: &Holdings, output: &Output) -> Result<Exit, Failure> {
    let mut answered = Ok(());
    let damage = ledger.each_readable_holding(asked, |holding| {
        let json = || lease_json(&holding.space, holding.address, &holding.lease);
        answered = output.answer(json, || lease_line(&holding, &ledger.facts().node));
    });
    drop(ledger);
    answered?;
    Ok(tell_damage(&damage, output))
}

/// How full a range is in each space that holds something of it; where nothing does, in the shared one.
fn one_range(
    ledger: &Ledger,
    network: Option<Network>,
    spec: ViewSpec,
    range: Range,
    output: &Output,
) -> Result<Exit, Failure> {
    let usable = ViewSpec { edges: Edges::Usable, ..spec.clone() };
    let view = View::new(&spec).or_else(|_| View::new(&usable)).map_err(Failure::usage)?;
    let mut spaces = Vec::new();
    for space in ledger.spaces()? {
        let in_network = network.as_ref().is_none_or(|network| network == space.network());
        if in_network && space.family() == Family::from(spec.cidr) {
            let occupancy = ledger.occupancy(&space, &view, range, CELLS)?;
            if occupancy.held + occupancy.strays > 0 {
                spaces.push((space, occupancy));
            }
        }
    }
    if spaces.is_empty() {
        let space = Space::shared(network.unwrap_or_else(Network::unnamed), Family::from(spec.cidr));
        let occupancy = ledger.occupancy(&space, &view, range, CELLS)?;
        spaces.push((space, occupancy));
    }
    for (space, occupancy) in &spaces {
        let free = occupancy.assignable.saturating_sub(occupancy.held);
        let (first, last) = (view.first(), view.last());
        let text = |address: Option<whereabouts_engine::Address>| {
            address.map_or("none".to_owned(), |address| address.to_string())
        };
        output.answer(
            || {
                json!({
                    "range": spec.cidr.to_string(), "network": space.network().as_str(),
                    "private": space.private_cidr().map(|cidr| cidr.to_string()),
                    "first": first.map(|address| address.to_string()), "last": last.map(|address| address.to_string()),
                    "assignable": occupancy.assignable.to_string(), "held": occupancy.held.to_string(),
                    "free": free.to_string(), "heldOutside": occupancy.strays.to_string(),
                    "lowestFree": occupancy.lowest_free.map(|address| address.to_string()),
                })
            },
            || {
                let ends = [
                    format!("first {}", text(first)),
                    format!("last {}", text(last)),
                    format!("next {}", text(occupancy.lowest_free)),
                ];
                let (held, assignable) = (count(occupancy.held), count(occupancy.assignable));
                let mut counts = vec![format!("{held} of {assignable} held"), format!("{} free", count(free))];
                if occupancy.strays > 0 {
                    counts.push(format!("{} held that the range would not hand out", count(occupancy.strays)));
                }
                let (ends, counts) = (lines("  ", &ends), lines(", ", &counts));
                format!("{} of {space}\n{ends}{counts}{}", spec.cidr, picture(occupancy))
            },
        )?;
    }
    Ok(Exit::Success)
}
