//! Bytes as records of every kind: what is read is written again as the same bytes, and nothing panics.
//!
//! The first byte chooses the kind; the rest is a body, sealed under a checksum that is right, or a record as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whereabouts_engine::testing::RecordKind;

const KEY: &[u8] = b"key";

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let kind = RecordKind::ALL[usize::from(first) % RecordKind::ALL.len()];
    let sealed = kind.seal(KEY, rest);
    for record in [sealed.as_slice(), rest] {
        if let Ok(again) = kind.reencode(KEY, record) {
            assert_eq!(again, record, "{kind:?}");
        }
    }
});
