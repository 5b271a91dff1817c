//! Pictures: load, save, resize, mask.
