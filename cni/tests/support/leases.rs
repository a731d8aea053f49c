//! What a plugin's ledger says, read as the library reads it and not through the plugin.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use whereabouts_engine::{Access, Create, Holdings, HostFacts, Ledger, OpenOptions};

use super::Plugin;

/// Address and container of everything that is held; the ledger must be sound. No ledger holds nothing.
#[track_caller]
pub fn held(plugin: &Plugin) -> BTreeMap<String, String> {
    let path = plugin.data_dir().join("ledger.redb");
    if !path.exists() {
        return BTreeMap::new();
    }
    let mut options = OpenOptions::new(path);
    (options.create, options.access) = (Create::Never, Access::Read);
    let mut ledger = Ledger::open(&options, HostFacts::read()).expect("the ledger can be read");
    assert_eq!(ledger.verify().expect("the ledger can be walked").disagreements, [], "the ledger contradicts itself");
    let mut held = BTreeMap::new();
    let each = |holding: whereabouts_engine::Holding| {
        let twice = held.insert(holding.address.to_string(), holding.lease.attachment.container.to_string());
        assert_eq!(twice, None, "{} is held twice", holding.address);
        ControlFlow::Continue(())
    };
    ledger.each_holding(&Holdings::default(), each).expect("the ledger can be walked");
    held
}

/// The addresses that are held, in the order of their text.
#[track_caller]
pub fn addresses(plugin: &Plugin) -> Vec<String> {
    held(plugin).into_keys().collect()
}
