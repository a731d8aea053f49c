//! The `whereabouts` program, as a library so that tests and fuzz targets reach its parts.

pub mod cni;
pub mod command_line;
pub mod config;
pub mod host;
pub mod log;
pub mod stores;
mod time;
pub mod verbs;
