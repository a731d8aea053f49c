//! A floor of `side-by-side`: what any process costs.

fn main() {}
