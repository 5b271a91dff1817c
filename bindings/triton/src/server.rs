//! The functions that Triton's server exports, found at run time (`tritonbackend.h`, `tritonserver.h`).

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY};

use crate::fault::{Answer, Code, Fault};
use crate::library::text;

/// An object of the server, of whichever type.
#[repr(C)]
pub(crate) struct Object {
    _private: [u8; 0],
}

/// `TRITONSERVER_MEMORY_CPU`.
pub(crate) const MEMORY_CPU: u32 = 0;
/// `TRITONSERVER_MEMORY_CPU_PINNED`.
pub(crate) const MEMORY_CPU_PINNED: u32 = 1;
/// `TRITONSERVER_RESPONSE_COMPLETE_FINAL`.
pub(crate) const RESPONSE_FINAL: u32 = 1;
/// `TRITONSERVER_REQUEST_RELEASE_ALL`.
pub(crate) const RELEASE_ALL: u32 = 1;
/// `TRITONSERVER_INSTANCEGROUPKIND_CPU`.
pub(crate) const INSTANCE_CPU: u32 = 1;
/// The version of the configuration's format.
pub(crate) const CONFIG_VERSION: u32 = 1;
/// `TRITONBACKEND_API_VERSION_MAJOR`.
const API_MAJOR: u32 = 1;

/// The levels of the server's log.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Level {
    Info = 0,
    Warn = 1,
    Error = 2,
}

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($type:ty),*) $(-> $result:ty)?;)*) => {
        /// The server's functions.
        pub(crate) struct Server {
            $(pub $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        impl Server {
            /// Finds all functions; else returns the name of the first one that the server lacks.
            fn find(libraries: &[Library]) -> Result<Self, &'static CStr> {
                Ok(Self {
                    $($name: {
                        type Function = unsafe extern "C" fn($($type),*) $(-> $result)?;
                        let symbol: &CStr = $symbol;
                        // SAFETY: the type is that of the server's header.
                        let find = |library: &Library| unsafe { library.get::<Function>(symbol.to_bytes_with_nul()) }.ok();
                        *libraries.iter().find_map(find).ok_or(symbol)?
                    },)*
                })
            }
        }
    };
}

functions! {
    error_new = c"TRITONSERVER_ErrorNew" (u32, *const c_char) -> *mut Object;
    error_code = c"TRITONSERVER_ErrorCode" (*mut Object) -> u32;
    error_message = c"TRITONSERVER_ErrorMessage" (*mut Object) -> *const c_char;
    error_delete = c"TRITONSERVER_ErrorDelete" (*mut Object);
    log_message = c"TRITONSERVER_LogMessage" (u32, *const c_char, i32, *const c_char) -> *mut Object;
    message_new = c"TRITONSERVER_MessageNewFromSerializedJson" (*mut *mut Object, *const c_char, usize) -> *mut Object;
    message_delete = c"TRITONSERVER_MessageDelete" (*mut Object) -> *mut Object;
    message_json = c"TRITONSERVER_MessageSerializeToJson" (*mut Object, *mut *const c_char, *mut usize) -> *mut Object;
    api_version = c"TRITONBACKEND_ApiVersion" (*mut u32, *mut u32) -> *mut Object;
    backend_config = c"TRITONBACKEND_BackendConfig" (*mut Object, *mut *mut Object) -> *mut Object;
    backend_artifacts = c"TRITONBACKEND_BackendArtifacts" (*mut Object, *mut u32, *mut *const c_char) -> *mut Object;
    backend_state = c"TRITONBACKEND_BackendState" (*mut Object, *mut *mut c_void) -> *mut Object;
    backend_set_state = c"TRITONBACKEND_BackendSetState" (*mut Object, *mut c_void) -> *mut Object;
    prefer_instances = c"TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup"
        (*mut Object, u32, u64, *const u64, u64) -> *mut Object;
    model_version = c"TRITONBACKEND_ModelVersion" (*mut Object, *mut u64) -> *mut Object;
    model_repository = c"TRITONBACKEND_ModelRepository" (*mut Object, *mut u32, *mut *const c_char) -> *mut Object;
    model_config = c"TRITONBACKEND_ModelConfig" (*mut Object, u32, *mut *mut Object) -> *mut Object;
    model_completes_config = c"TRITONBACKEND_ModelAutoCompleteConfig" (*mut Object, *mut bool) -> *mut Object;
    model_set_config = c"TRITONBACKEND_ModelSetConfig" (*mut Object, u32, *mut Object) -> *mut Object;
    model_backend = c"TRITONBACKEND_ModelBackend" (*mut Object, *mut *mut Object) -> *mut Object;
    model_state = c"TRITONBACKEND_ModelState" (*mut Object, *mut *mut c_void) -> *mut Object;
    model_set_state = c"TRITONBACKEND_ModelSetState" (*mut Object, *mut c_void) -> *mut Object;
    instance_name = c"TRITONBACKEND_ModelInstanceName" (*mut Object, *mut *const c_char) -> *mut Object;
    instance_device = c"TRITONBACKEND_ModelInstanceDeviceId" (*mut Object, *mut i32) -> *mut Object;
    instance_model = c"TRITONBACKEND_ModelInstanceModel" (*mut Object, *mut *mut Object) -> *mut Object;
    instance_state = c"TRITONBACKEND_ModelInstanceState" (*mut Object, *mut *mut c_void) -> *mut Object;
    instance_set_state = c"TRITONBACKEND_ModelInstanceSetState" (*mut Object, *mut c_void) -> *mut Object;
    report_request = c"TRITONBACKEND_ModelInstanceReportStatistics"
        (*mut Object, *mut Object, bool, u64, u64, u64, u64) -> *mut Object;
    report_batch = c"TRITONBACKEND_ModelInstanceReportBatchStatistics"
        (*mut Object, u64, u64, u64, u64, u64) -> *mut Object;
    request_input_count = c"TRITONBACKEND_RequestInputCount" (*mut Object, *mut u32) -> *mut Object;
    request_input = c"TRITONBACKEND_RequestInputByIndex" (*mut Object, u32, *mut *mut Object) -> *mut Object;
    request_output_count = c"TRITONBACKEND_RequestOutputCount" (*mut Object, *mut u32) -> *mut Object;
    request_output = c"TRITONBACKEND_RequestOutputName" (*mut Object, u32, *mut *const c_char) -> *mut Object;
    request_is_cancelled = c"TRITONBACKEND_RequestIsCancelled" (*mut Object, *mut bool) -> *mut Object;
    request_release = c"TRITONBACKEND_RequestRelease" (*mut Object, u32) -> *mut Object;
    input_properties = c"TRITONBACKEND_InputProperties"
        (*mut Object, *mut *const c_char, *mut u32, *mut *const i64, *mut u32, *mut u64, *mut u32) -> *mut Object;
    input_buffer = c"TRITONBACKEND_InputBuffer"
        (*mut Object, u32, *mut *const c_void, *mut u64, *mut u32, *mut i64) -> *mut Object;
    factory_new = c"TRITONBACKEND_ResponseFactoryNew" (*mut *mut Object, *mut Object) -> *mut Object;
    factory_delete = c"TRITONBACKEND_ResponseFactoryDelete" (*mut Object) -> *mut Object;
    response_new = c"TRITONBACKEND_ResponseNewFromFactory" (*mut *mut Object, *mut Object) -> *mut Object;
    response_delete = c"TRITONBACKEND_ResponseDelete" (*mut Object) -> *mut Object;
    response_output = c"TRITONBACKEND_ResponseOutput"
        (*mut Object, *mut *mut Object, *const c_char, u32, *const i64, u32) -> *mut Object;
    response_send = c"TRITONBACKEND_ResponseSend" (*mut Object, u32, *mut Object) -> *mut Object;
    output_buffer = c"TRITONBACKEND_OutputBuffer"
        (*mut Object, *mut *mut c_void, u64, *mut u32, *mut i64) -> *mut Object;
}

static SERVER: OnceLock<Result<Server, &'static CStr>> = OnceLock::new();

/// Returns the server's functions.
pub(crate) fn server() -> &'static Server {
    let found = SERVER.get_or_init(|| {
        // The program and what it is linked with; else, for a server inside another program, its library if that is loaded.
        let open = libloading::os::unix::Library::this();
        // SAFETY: RTLD_NOLOAD runs no initializer.
        let library = unsafe { Library::open(Some("libtritonserver.so"), RTLD_LAZY | libc::RTLD_NOLOAD) };
        Server::find(&[Some(open), library.ok()].into_iter().flatten().collect::<Vec<_>>())
    });
    match found {
        Ok(server) => server,
        Err(name) => {
            // Without the server's functions not even an error can be returned to it.
            eprintln!("triton_ldm_ort: the server lacks {}: use a newer one", name.to_string_lossy());
            std::process::abort()
        }
    }
}

/// Checks that the server's interface is the one that this backend knows.
pub(crate) fn check_version() -> Answer<()> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both may be written.
    check(unsafe { (server().api_version)(&raw mut major, &raw mut minor) })?;
    if major == API_MAJOR {
        return Ok(());
    }
    let message = format!("expected version {API_MAJOR} of Triton's backend interface, found {major}.{minor}");
    Err(Fault { code: Code::Unsupported, message })
}

/// Turns the result of a call into an answer.
pub(crate) fn check(error: *mut Object) -> Answer<()> {
    if error.is_null() {
        return Ok(());
    }
    let server = server();
    // SAFETY: an error that a call returned, deleted once.
    let (code, message) = unsafe {
        let found = ((server.error_code)(error), text((server.error_message)(error)));
        (server.error_delete)(error);
        found
    };
    let known = [Code::InvalidArgument, Code::Unavailable, Code::Unsupported, Code::Cancelled];
    let code = known.into_iter().find(|known| *known as u32 == code).unwrap_or(Code::Internal);
    Err(Fault { code, message })
}

/// Makes the server's error of a fault.
pub(crate) fn error_of(fault: &Fault) -> *mut Object {
    let message = c_message(&fault.message);
    // SAFETY: the message ends in NUL and is copied.
    unsafe { (server().error_new)(fault.code as u32, message.as_ptr()) }
}

/// Writes to the server's log.
pub(crate) fn log(level: Level, message: &str) {
    let message = c_message(message);
    // SAFETY: the texts end in NUL and are copied.
    let result = unsafe { (server().log_message)(level as u32, c"ldm_ort".as_ptr(), 0, message.as_ptr()) };
    // A log that cannot be written is no reason to fail.
    let _ = check(result);
}

fn c_message(message: &str) -> CString {
    CString::new(message.replace('\0', " ")).unwrap_or_default()
}

/// Calls a function that returns its result through a pointer.
pub(crate) fn get<T: Copy>(initial: T, call: impl FnOnce(*mut T) -> *mut Object) -> Answer<T> {
    let mut result = initial;
    check(call(&raw mut result))?;
    Ok(result)
}

/// Copies the JSON of a message.
///
/// # Safety
/// `message` is a message of the server.
pub(crate) unsafe fn json_of(message: *mut Object) -> Answer<serde_json::Value> {
    let (mut base, mut length) = (std::ptr::null(), 0);
    // SAFETY: as this function demands; the text lives as long as the message.
    let bytes = unsafe {
        check((server().message_json)(message, &raw mut base, &raw mut length))?;
        std::slice::from_raw_parts(base.cast::<u8>(), length)
    };
    serde_json::from_slice(bytes).map_err(|error| Fault::internal(format!("the server's JSON: {error}")))
}

/// Copies a path of the server.
///
/// # Safety
/// `call` writes a text that ends in NUL.
pub(crate) unsafe fn path_of(call: impl FnOnce(*mut u32, *mut *const c_char) -> *mut Object) -> Answer<PathBuf> {
    let (mut kind, mut location) = (0, std::ptr::null());
    check(call(&raw mut kind, &raw mut location))?;
    // SAFETY: as this function demands.
    Ok(PathBuf::from(unsafe { text(location) }))
}
