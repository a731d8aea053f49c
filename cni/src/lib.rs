//! The `whereabouts` program, as a library so that tests and fuzz targets reach its parts.
