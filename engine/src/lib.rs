//! Addresses that are unique.
