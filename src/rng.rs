//! Seeded unit normal noise.
