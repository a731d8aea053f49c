//! `who`: who holds an address, and who held it.

use serde_json::json;

use super::exit::{Exit, Failure};
use super::leases::{lease_json, lease_line, node_unless};
use super::output::Output;
use super::settings::Settings;
use super::typed::Who;
use crate::time::{parse, rfc3339};

pub(super) fn who(typed: &Who, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let at = typed.at.as_deref().map(|text| {
        let wrong = || {
            Failure::usage(format_args!(
                "--at {text}: write a time such as 2026-11-24T08:00:00Z, or seconds since 1970"
            ))
        };
        parse(text).ok_or_else(wrong)
    });
    let at = at.transpose()?;
    let address = typed.address.into();
    let ledger = settings.read(output)?;
    let here = &*ledger.facts().node;
    let mut n_found = 0;
    for past in ledger.history(address)? {
        let (since, until) = (past.lease.since, past.until);
        if at.is_some_and(|at| at < since || until < at) {
            continue;
        }
        n_found += 1;
        output.answer(
            || {
                let mut json = lease_json(&past.block.space, address, &past.lease);
                if let Some(object) = json.as_object_mut() {
                    object.insert("until".to_owned(), json!(rfc3339(until)));
                }
                json
            },
            || {
                let node = node_unless(&past.lease, here);
                format!("{address}  from {} to {}  {}{node}\n", rfc3339(since), rfc3339(until), past.lease)
            },
        )?;
    }
    for holding in ledger.who(address)? {
        if at.is_some_and(|at| at < holding.lease.since) {
            continue;
        }
        n_found += 1;
        output.answer(|| lease_json(&holding.space, address, &holding.lease), || lease_line(&holding, here))?;
    }
    if n_found == 0 {
        let when = if at.is_some() { "held it then" } else { "holds or held it" };
        return Err(Failure::new(Exit::NotHeld, format_args!("{address}: nobody {when}, as far as this ledger knows")));
    }
    Ok(Exit::Success)
}
