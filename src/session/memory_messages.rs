//! Messages about memory that there is not, of ONNX Runtime, its providers and their drivers.

/// Parts of such messages, in lower case.
const LACK_OF_MEMORY: &[&str] = &[
    // The allocators of ONNX Runtime and the C++ library.
    "failed to allocate memory",
    "failed to find a free memory block",
    "is smaller than requested bytes",
    "arena ran out of memory",
    "bad_alloc",
    "bad allocation",
    // CUDA, ROCm, cuBLAS, cuDNN and TensorRT; Vulkan, OpenCL, Level Zero and Metal.
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "out_of_device_memory",
    "out_of_host_memory",
    "alloc_failed",
    "allocation_failed",
    // Dawn, which runs WebGPU.
    "allocation size too large",
    "excessive video memory usage",
    "unable to allocate buffer",
    // Direct3D 12, whose messages are in the language of the system.
    "8007000e",
    "not enough memory resources",
    // OpenVINO on GPUs. `CL_OUT_OF_RESOURCES` is none of them: a kernel at fault or a lost device ends in it, too.
    "cl_mem_object_allocation_failure",
    "exceeded max size of memory",
    "buffer allocation failed",
    "could not allocate memory",
];

/// OpenVINO gives the codes of OpenCL as numbers in some messages: `[GPU] clFlush, error code: -6`. These are
/// `CL_MEM_OBJECT_ALLOCATION_FAILURE` and `CL_OUT_OF_HOST_MEMORY`.
const OPENCL_CODES: [&str; 2] = ["-4", "-6"];

/// Returns true if a message says that memory is lacking, of the host or of a device.
pub(super) fn is_lack_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let code = message.split_once("[gpu] ").and_then(|(_, rest)| rest.split_once("error code: "));
    let code = code.and_then(|(_, rest)| rest.split_whitespace().next());
    LACK_OF_MEMORY.iter().any(|part| message.contains(part)) || code.is_some_and(|code| OPENCL_CODES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they were seen in logs and reports, or as the sources put them together.
    const LACKING: &[&str] = &[
        // onnxruntime/core/framework/bfc_arena.cc
        "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to \
         allocate memory for requested buffer of size 2830172160",
        "bfc_arena.cc:342 Available memory of 1048576 is smaller than requested bytes of 939524096",
        "Failed to find a free memory block despite calling Extend. rounded_bytes=4194304",
        "BFC Arena ran out of memory trying to allocate 939524096.  Current allocation summary follows.",
        "std::bad_alloc",
        "bad allocation",
        // onnxruntime/core/providers/cuda/cuda_call.cc
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc((void**)&p, size); ",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=host ; expr=cublasCreate(&cublas_handle_); ",
        "CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY",
        "HIP failure 2: hipErrorOutOfMemory ; GPU=0",
        // TensorRT's log
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested size was 16581132288 bytes.)",
        // WebGPU's plugin 0.4.0 on SwiftShader; dawn/native/d3d12
        "WebGPU device error(3): vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY\n - While calling \
         [Device].CreateBuffer([BufferDescriptor]).",
        "WebGPU device error(3): Allocation size too large\n - While calling [Device].CreateBuffer([BufferDescriptor]).",
        "WebGPU device error(2): Out of memory",
        "WebGPU device error(3): Failed to allocate memory for buffer mapping",
        "MakeResident has failed due to excessive video memory usage.",
        "ID3D12Device::CreateCommittedResource failed with E_OUTOFMEMORY (0x8007000E)",
        // DirectML
        "MLOperatorAuthorImpl.cpp(1978)\\onnxruntime.dll!00007FFBDC8EBB9F: (caller: 00007FFBDCFFDEFF) Exception(3) tid(4304) \
         8007000E Not enough memory resources are available to complete this operation.",
        "BucketizedBufferAllocator.cpp(122) Exception(1) tid(1) 8007000E Pas assez de ressources",
        // openvino/src/plugins/intel_gpu/src/runtime/ocl, and Level Zero of the NPU
        "[GPU] clEnqueueMapBuffer, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE",
        "[GPU] Exceeded max size of memory object allocation: requested 9172942848 bytes, but max alloc size supported by \
         device is 4294959104 bytes.Please try to reduce batch size or use lower precision.",
        "[GPU] Exceeded max size of memory allocation: Required 17179869184 bytes, already occupied : 0 bytes",
        "[GPU] buffer allocation failed",
        "ocl_gpu_engine.cpp:261 errcode -6,CL_OUT_OF_HOST_MEMORY",
        "L0 pfnAppendGraphExecute result: ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY, code 0x70000003",
    ];

    const OTHER: &[&str] = &[
        "Exception from src/inference/src/cpp/infer_request.cpp:223:\n[GPU] CL_OUT_OF_RESOURCES exception.",
        "Exception from src/plugins/intel_gpu/src/runtime/ocl/ocl_engine.cpp:185:\n[GPU] out of GPU resources",
        "Exception from src/plugins/intel_gpu/src/runtime/ocl/ocl_stream.cpp:365:\n[GPU] clFlush, error code: -5",
        "This is an invalid model. Error in Node:conv : No Op registered for Conv2 with domain_version of 17",
        "WebGPU validation failed. [Invalid Buffer (unlabeled)] is invalid due to a previous error.",
        "[GPU] clEnqueueNDRangeKernel, error code: -54",
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=host",
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED",
        "Failed to allocate required number of vector registers",
        "887A0005 The GPU device instance has been suspended.",
        "Shape mismatch attempting to re-use buffer. {2,8,8,8} != {2,16,16,8}.",
        "WebGPU device error(2): [Buffer] used in submit while destroyed.",
    ];

    #[test]
    fn messages_about_memory_are_told_from_others() {
        let wrong: Vec<_> = LACKING.iter().filter(|text| !is_lack_of_memory(text)).collect();
        assert!(wrong.is_empty(), "not recognized: {wrong:#?}");
        let wrong: Vec<_> = OTHER.iter().filter(|text| is_lack_of_memory(text)).collect();
        assert!(wrong.is_empty(), "taken for a lack of memory: {wrong:#?}");
    }
}
