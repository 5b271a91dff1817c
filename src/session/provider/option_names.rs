//! The options of providers that ignore options they do not know, without a message.
//!
//! CUDA, TensorRT, TensorRT for RTX, ROCm and Core ML refuse unknown options themselves (`ProviderOptionsParser` and
//! `CoreMLOptions` in ONNX Runtime's sources), and so does OpenVINO. DirectML and MIGraphX take a structure, which
//! [`register`](super::register) fills.

/// `onnxruntime/core/providers/webgpu/webgpu_provider_options.h`, as of the plugin 0.4.0.
pub(super) const WEBGPU: &[&str] = &[
    "dawnBackendType",
    "dawnProcTable",
    "defaultBufferCacheMode",
    "deviceId",
    "enableGraphCapture",
    "enableInt64",
    "enablePIXCapture",
    "enableRobustness",
    "forceCpuNodeNames",
    "kvCacheQuantizationBits",
    "maxNumPendingDispatches",
    "maxStorageBufferBindingSize",
    "multiRotaryCacheConcatOffset",
    "powerPreference",
    "preferredLayout",
    "preserveDevice",
    "queryResolveBufferCacheMode",
    "sessionBufferPoolGenerations",
    "storageBufferCacheMode",
    "uniformBufferCacheMode",
    "validationMode",
    "webgpuDevice",
    "webgpuInstance",
];

/// `docs/execution_providers/QNN-ExecutionProvider.md` of the plugin's repository (onnxruntime/onnxruntime-qnn, 2.3), and
/// `enable_htp_weight_sharing` of older builds.
pub(super) const QNN: &[&str] = &[
    "backend_path",
    "backend_type",
    "device_id",
    "disable_file_mapped_weights",
    "dump_json_qnn_graph",
    "dump_qnn_ir_dlc",
    "dump_qnn_ir_dlc_dir",
    "enable_block_quant_weight_optimization",
    "enable_framework_op_trace",
    "enable_htp_fp16_precision",
    "enable_htp_prepare_only",
    "enable_htp_shared_memory_allocator",
    "enable_htp_spill_fill_buffer",
    "enable_htp_weight_sharing",
    "enable_vtcm_backup_buffer_sharing",
    "extended_udma",
    "framework_op_trace_dir",
    "genie_log_level",
    "htp_arch",
    "htp_bf16_enable",
    "htp_graph_finalization_optimization_mode",
    "htp_performance_mode",
    "htp_share_resource_optimization",
    "json_qnn_graph_dir",
    "num_graph_prepare_threads",
    "offload_graph_io_quantization",
    "op_packages",
    "profiling_file_path",
    "profiling_level",
    "qnn_context_priority",
    "qnn_ir_backend_path",
    "qnn_saver_path",
    "rpc_control_latency",
    "skip_qnn_version_check",
    "soc_model",
    "vtcm_mb",
];

/// `onnxruntime/core/providers/xnnpack/xnnpack_execution_provider.h`.
pub(super) const XNNPACK: &[&str] = &["intra_op_num_threads"];
