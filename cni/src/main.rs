//! The `whereabouts` program.
fn main() {}
