//! Network configurations and flat files of any content, merged: an answer or an error, and never a panic.
//!
//! The input is a network configuration and, behind a zero byte, a flat file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whereabouts::config::{
    Configuration, FlatFile, FlatFileSearch, LossyConfiguration, NetworkConfiguration, StaticArguments, Surroundings,
    read_documents,
};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (network, flat) = (parts.next().unwrap_or_default(), parts.next());
    let _ = read_documents("file", input);
    let surroundings = Surroundings { flat_files: FlatFileSearch::none(), data_dir: None, node: None };
    let flat_file = flat.and_then(|flat| {
        let object = NetworkConfiguration::parse(flat).ok()?.object().clone();
        Some(FlatFile { path: "/flat".into(), object })
    });
    let parsed = NetworkConfiguration::parse(network);
    let _ = LossyConfiguration::read(parsed.as_ref().ok(), flat_file.as_ref(), &surroundings);
    let Ok(parsed) = parsed else { return };
    match Configuration::load_with(&parsed, flat_file.as_ref(), &StaticArguments::default(), &surroundings) {
        Ok(loaded) => {
            for range in &loaded.configuration.ranges {
                let view = range.view();
                if let Some(first) = view.first() {
                    assert!(view.contains(first) && range.covers(first));
                }
                assert_eq!(range.gateway().filter(|gateway| view.family() != gateway.family()), None);
            }
            let _ = loaded.warnings.iter().map(ToString::to_string).collect::<String>();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
