//! Options of execution providers that a record may hold.

/// Options that a record may hold, of any provider: numbers and words that choose a device, a precision or an algorithm.
/// All others are left out, because some take files, libraries or, as `user_compute_stream`, an address in memory.
const PLAIN_OPTIONS: [&str; 44] = [
    "AllowLowPrecisionAccumulationOnGPU",
    "EnableOnSubgraphs",
    "MLComputeUnits",
    "ModelFormat",
    "RequireStaticInputShapes",
    "SpecializationStrategy",
    "arena_extend_strategy",
    "cudnn_conv1d_pad_to_nc1d",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "device_id",
    "device_type",
    "disable_dynamic_shapes",
    "disable_metacommands",
    "do_copy_in_default_stream",
    "enable_cuda_graph",
    "enable_htp_fp16_precision",
    "enable_qdq_optimizer",
    "enable_skip_layer_norm_strict_mode",
    "fuse_conv_bias",
    "gpu_mem_limit",
    "htp_arch",
    "htp_graph_finalization_optimization_mode",
    "htp_performance_mode",
    "intra_op_num_threads",
    "migraphx_bf16_enable",
    "migraphx_exhaustive_tune",
    "migraphx_fp16_enable",
    "migraphx_fp8_enable",
    "migraphx_int8_enable",
    "model_priority",
    "num_of_threads",
    "num_streams",
    "performance_preference",
    "precision",
    "prefer_nhwc",
    "sdpa_kernel",
    "soc_model",
    "trt_bf16_enable",
    "trt_builder_optimization_level",
    "trt_fp16_enable",
    "trt_int8_enable",
    "trt_max_workspace_size",
    "use_tf32",
];

/// True for provider options that a record may hold.
pub(super) fn is_plain_option(name: &str, value: &str) -> bool {
    let is_number = value.parse::<f64>().is_ok();
    let is_word = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_number || is_word) && PLAIN_OPTIONS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_that_are_known_to_be_harmless_are_plain() {
        for (name, value) in [
            ("device_id", "0"),
            ("arena_extend_strategy", "kSameAsRequested"),
            ("device_type", "GPU"),
            ("gpu_mem_limit", "-1.5"),
        ] {
            assert!(is_plain_option(name, value), "{name}");
        }
        for (name, value) in [
            ("trt_engine_cache_path", "x"),
            ("trt_extra_plugin_lib_paths", "1"),
            ("trt_dump_ep_context_model", "1"),
            ("backend_path", "QnnHtp"),
            ("load_config", "a"),
            ("device_type", "../x.so"),
            ("device_type", "x.dll"),
            ("endpoint", "http://host"),
            // Addresses in memory, the first of them called.
            ("gpu_external_alloc", "140737488355328"),
            ("user_compute_stream", "1"),
            ("an_option_of_a_later_version", "1"),
        ] {
            assert!(!is_plain_option(name, value), "{name}");
        }
        assert!(PLAIN_OPTIONS.is_sorted(), "{PLAIN_OPTIONS:?}");
    }
}
