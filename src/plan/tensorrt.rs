//! TensorRT's cache of measured kernels.

use std::path::Path;

use crate::spec::Options;

/// The provider's name.
pub(super) const PROVIDER: &str = "tensorrt";

const SWITCH: &str = "trt_timing_cache_enable";
const FOLDER: &str = "trt_timing_cache_path";

/// Adds a cache of the kernels that TensorRT measured, in `folder`, unless the options say something else of it: engines are
/// compiled in a fraction of the time with it.
///
/// Engines themselves are not kept: ONNX Runtime names their files after the names in a graph, not after its weights and
/// shapes (microsoft/onnxruntime#6455), so that one with a LoRA would run the engine without.
pub(super) fn with_timing_cache(mut options: Options, folder: &Path) -> Options {
    if !options.contains_key(SWITCH) && !options.contains_key(FOLDER) {
        options.insert(SWITCH.to_owned(), "1".to_owned());
        options.insert(FOLDER.to_owned(), folder.display().to_string());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_kept_unless_the_options_say_otherwise() {
        let options = |pairs: &[(&str, &str)]| -> Options {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let expected = options(&[("trt_fp16_enable", "1"), (SWITCH, "1"), (FOLDER, "cache")]);
        assert_eq!(with_timing_cache(options(&[("trt_fp16_enable", "1")]), Path::new("cache")), expected);
        for own in [options(&[(SWITCH, "0")]), options(&[(FOLDER, "mine")])] {
            assert_eq!(with_timing_cache(own.clone(), Path::new("cache")), own);
        }
    }
}
