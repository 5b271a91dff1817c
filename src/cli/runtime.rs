//! `ldm-ort runtime`: which ONNX Runtime is used, which builds are there, and fetching one ahead of time.

use std::path::PathBuf;

use crate::session::Env;

/// What the process's environment says about ONNX Runtime.
pub fn environment() -> Env {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let library_path = if cfg!(windows) {
        "PATH"
    } else if cfg!(target_os = "macos") {
        "DYLD_LIBRARY_PATH"
    } else {
        "LD_LIBRARY_PATH"
    };
    Env {
        ort_dylib_path: path("ORT_DYLIB_PATH"),
        library_path: std::env::var_os(library_path).map(|v| std::env::split_paths(&v).collect()).unwrap_or_default(),
        program_dir: std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)),
        cache_dir: path("LDM_ORT_CACHE_DIR"),
        index_url: ["LDM_ORT_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"].into_iter().find_map(text),
        pip_config: pip_config(),
        ca_bundle: path("SSL_CERT_FILE"),
    }
}

/// Where pip looks for its configuration, the file that counts most in front.
fn pip_config() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = var("HOME");
    let under = |base: &Option<PathBuf>, rest: &str| base.as_ref().map(|b| b.join(rest));
    let config = var("XDG_CONFIG_HOME").or_else(|| under(&home, ".config"));
    let places = if cfg!(windows) {
        vec![var("PIP_CONFIG_FILE"), under(&var("APPDATA"), "pip/pip.ini"), under(&var("ProgramData"), "pip/pip.ini")]
    } else {
        vec![
            var("PIP_CONFIG_FILE"),
            under(&home, "Library/Application Support/pip/pip.conf").filter(|_| cfg!(target_os = "macos")),
            under(&config, "pip/pip.conf"),
            under(&home, ".pip/pip.conf"),
            Some(PathBuf::from("/etc/pip.conf")),
        ]
    };
    places.into_iter().flatten().collect()
}
