//! `include/ldm_ort.h` says what the code does.
//!
//! `LDM_ORT_WRITE_DOCS=1 cargo test -p ldm-ort-c --test header` writes it anew.

use std::path::Path;

#[test]
fn the_header_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("a configuration");
    let bindings = cbindgen::Builder::new().with_config(config).with_crate(folder).generate().expect("bindings");
    let mut text = Vec::new();
    bindings.write(&mut text);
    let header = folder.join("include/ldm_ort.h");
    if std::env::var_os("LDM_ORT_WRITE_DOCS").is_some() {
        std::fs::write(&header, &text).expect("the header can be written");
    }
    let committed = std::fs::read(&header).unwrap_or_default();
    assert!(committed == text, "{} is not current; LDM_ORT_WRITE_DOCS=1 writes it", header.display());
}
