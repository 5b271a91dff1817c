//! Supported versions of ONNX Runtime.

/// Returns the oldest version of ONNX Runtime that this program supports.
pub fn minimum_version() -> String {
    format!("1.{}", ort::MINOR_VERSION)
}

/// Returns true if this program can use a version `1.x.y`.
pub(super) fn is_supported(version: &str) -> bool {
    minor(version).is_some_and(|minor| minor >= ort::MINOR_VERSION)
}

/// Returns the minor version of a version `1.x.y`.
pub(super) fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    if parts.next()? != "1" {
        return None;
    }
    parts.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_minor_versions() {
        assert_eq!(minor("1.31.1"), Some(31));
        assert_eq!(minor("1.9.0"), Some(9));
        assert_eq!(minor("2.0.0"), None);
        assert_eq!(minor(""), None);
        assert!(!is_supported("1.9.0") && is_supported("1.31.1"));
    }
}
