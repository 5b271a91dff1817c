//! Where TensorRT keeps what it compiles.

use std::path::Path;

use crate::spec::Options;

/// The provider's name.
pub(super) const PROVIDER: &str = "tensorrt";

/// A switch of the provider, and the option with the folder that goes with it.
const CACHES: [(&str, &str); 2] =
    [("trt_engine_cache_enable", "trt_engine_cache_path"), ("trt_timing_cache_enable", "trt_timing_cache_path")];

/// Adds caches of engines and of measured kernels in `folder`, unless the options say something else of them: without,
/// TensorRT compiles a graph for minutes each time that it is opened. The provider names files after the graph, its own
/// version and the GPU.
pub(super) fn with_caches(mut options: Options, folder: &Path) -> Options {
    for (switch, place) in CACHES {
        if !options.contains_key(switch) && !options.contains_key(place) {
            options.insert(switch.to_owned(), "1".to_owned());
            options.insert(place.to_owned(), folder.display().to_string());
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_added_where_nothing_is_said_of_them() {
        let folder = Path::new("cache");
        let options = |pairs: &[(&str, &str)]| -> Options {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let expected = options(&[
            ("trt_engine_cache_enable", "1"),
            ("trt_engine_cache_path", "cache"),
            ("trt_fp16_enable", "1"),
            ("trt_timing_cache_enable", "1"),
            ("trt_timing_cache_path", "cache"),
        ]);
        assert_eq!(with_caches(options(&[("trt_fp16_enable", "1")]), folder), expected);
        for own in [
            options(&[("trt_engine_cache_enable", "0"), ("trt_timing_cache_enable", "0")]),
            options(&[("trt_engine_cache_path", "mine"), ("trt_timing_cache_path", "mine")]),
        ] {
            assert_eq!(with_caches(own.clone(), folder), own);
        }
    }
}
