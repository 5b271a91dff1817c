//! The only room that imports ort: the runtime library, execution providers, opening and running graphs.
