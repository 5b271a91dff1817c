//! pipeline.toml: as written, checked, and planned.
