//! Parses arbitrary mapping and access documents. Valid ones round-trip, and their formats compile or are
//! refused.

#![no_main]

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::shard;
use flutecast_format::program::Program;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(document) = ShardDocument::from_yaml(text) {
        let yaml = document.to_yaml().expect("YAML");
        let again = ShardDocument::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(shard::revision(&document), shard::revision(&again));
        assert_eq!(again.to_yaml().expect("YAML"), yaml);
        for format in document.formats.values() {
            let _ = Program::compile(format);
        }
        if let Some(settings) = &document.settings {
            let split = shard::split(&document.tenant, settings, &document.formats, &document.devices);
            let devices: usize = split.shards.iter().map(|shard| shard.devices.len()).sum();
            assert_eq!(devices + split.oversized.len(), document.devices.len());
        }
    }
    if let Ok(document) = AccessDocument::from_yaml(text) {
        let yaml = document.to_yaml().expect("YAML");
        assert_eq!(AccessDocument::from_yaml(&yaml).expect("what was written"), document);
    }
});
