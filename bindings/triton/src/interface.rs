//! The C interface of `libldm_ort`, as its header `ldm_ort.h` describes it (table version 1).

use std::ffi::{c_char, c_int, c_void};

pub(crate) const API_VERSION: u32 = 1;

// Kinds of errors that have a code of their own in Triton.
pub(crate) const INVALID_REQUEST: u32 = 1;
pub(crate) const INVALID_MODEL: u32 = 2;
pub(crate) const PROVIDER: u32 = 3;
pub(crate) const IO: u32 = 4;
pub(crate) const MEMORY: u32 = 5;
#[cfg(test)]
pub(crate) const NON_FINITE: u32 = 6;
pub(crate) const CANCELLED: u32 = 7;

// Kinds of events that the backend uses.
pub(crate) const EVENT_PREVIEW: u32 = 3;
pub(crate) const EVENT_WARNING: u32 = 5;

/// An object of the library, of whichever type.
#[repr(C)]
pub(crate) struct Opaque {
    _private: [u8; 0],
}

pub(crate) type Status = Opaque;

/// `LdmImage`.
#[repr(C)]
pub(crate) struct LdmImage {
    pub width: u32,
    pub height: u32,
    pub index: usize,
    pub seed: u64,
    pub rgb: *const u8,
    pub rgb_length: usize,
    pub record: *const c_char,
}

/// `LdmEvent`.
#[repr(C)]
pub(crate) struct LdmEvent {
    pub kind: u32,
    pub step: u32,
    pub steps: u32,
    pub image: *const LdmImage,
    pub json: *const c_char,
}

/// `LdmInput`.
#[repr(C)]
pub(crate) struct LdmInput {
    pub key: *const c_char,
    pub data: *const u8,
    pub length: usize,
    pub width: u32,
    pub height: u32,
}

pub(crate) type Observer = Option<unsafe extern "C" fn(event: *const LdmEvent, user: *mut c_void)>;
pub(crate) type GetApi = unsafe extern "C" fn(version: u32) -> *const LdmApi;

macro_rules! table {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        /// `LdmApi`.
        #[repr(C)]
        pub(crate) struct LdmApi {
            pub version: u32,
            $(pub $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        /// The names of the functions, in the table's order.
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

table! {
    library_version() -> *const c_char;
    status_kind(*const Status) -> u32;
    status_message(*const Status) -> *const c_char;
    status_release(*mut Status);
    engine_create(*const c_char, *const c_void, *mut *mut Opaque) -> *mut Status;
    engine_release(*mut Opaque);
    run_create(*mut *mut Opaque) -> *mut Status;
    run_cancel(*const Opaque);
    run_release(*mut Opaque);
    pipeline_open(
        *const Opaque, *const c_char, *const c_char, *const Opaque, Observer, *mut c_void, *mut *mut Opaque
    ) -> *mut Status;
    pipeline_open_toml(
        *const Opaque, *const c_char, *const c_char, *const Opaque, Observer, *mut c_void, *mut *mut Opaque
    ) -> *mut Status;
    pipeline_runtime_version(*const Opaque) -> *const c_char;
    pipeline_check(*const Opaque, *const c_char, *const LdmInput, usize) -> *mut Status;
    pipeline_run(
        *const Opaque, *const c_char, *const LdmInput, usize, *const Opaque, Observer, *mut c_void, *mut *mut Opaque
    ) -> *mut Status;
    pipeline_release(*mut Opaque);
    images_count(*const Opaque) -> usize;
    images_get(*const Opaque, usize) -> *const LdmImage;
    images_encode(*const Opaque, usize, *const c_char, c_int, *mut *const u8, *mut usize) -> *mut Status;
    images_release(*mut Opaque);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../c/include/ldm_ort.h");

    /// The body of a struct of the header, without comments.
    fn body(name: &str) -> String {
        let start = HEADER.find(&format!("typedef struct {name} {{")).expect("the struct");
        let end = HEADER[start..].find(&format!("}} {name};")).expect("its end") + start;
        let lines = HEADER[start..end].lines().skip(1).filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join(" ")
    }

    /// The table has the header's functions in its order.
    #[test]
    fn table_is_that_of_the_header() {
        let body = body("LdmApi");
        let functions = body.split("(*").skip(1).filter_map(|rest| rest.split_once(')')).map(|(name, _)| name);
        assert_eq!(functions.collect::<Vec<_>>(), NAMES);
        assert!(body.trim_start().starts_with("uint32_t version;"));
        assert!(HEADER.contains(&format!("#define LDM_API_VERSION {API_VERSION}\n")));
    }

    /// Structs have the header's fields in its order.
    #[test]
    fn structs_are_those_of_the_header() {
        let fields = |name: &str| {
            let body = body(name);
            let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
            let names = fields.map(|field| field.rsplit([' ', '*']).next().unwrap_or_default().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fields("LdmImage"), "width height index seed rgb rgb_length record");
        assert_eq!(fields("LdmEvent"), "kind step steps image json");
        assert_eq!(fields("LdmInput"), "key data length width height");
    }

    /// Kinds have the header's values.
    #[test]
    fn kinds_are_those_of_the_header() {
        let kinds = [
            ("LDM_INVALID_REQUEST", INVALID_REQUEST),
            ("LDM_INVALID_MODEL", INVALID_MODEL),
            ("LDM_PROVIDER", PROVIDER),
            ("LDM_IO", IO),
            ("LDM_MEMORY", MEMORY),
            ("LDM_NON_FINITE", NON_FINITE),
            ("LDM_CANCELLED", CANCELLED),
            ("LDM_EVENT_PREVIEW", EVENT_PREVIEW),
            ("LDM_EVENT_WARNING", EVENT_WARNING),
        ];
        for (name, value) in kinds {
            assert!(HEADER.contains(&format!("  {name} = {value},\n")), "{name}");
        }
    }
}
