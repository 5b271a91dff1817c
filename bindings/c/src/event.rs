//! Events, as callbacks see them.

use std::ffi::{CString, c_char, c_void};

use ldm_ort::Event;

use crate::images::{LdmImage, view_of};

/// The kinds of events. Later versions may add kinds.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names in C")]
pub enum LdmEventKind {
    /// Anything that has no kind of its own; `json` says what.
    LDM_EVENT_OTHER = 0,
    /// A graph was opened.
    LDM_EVENT_LOADING = 1,
    /// A step of a batch is done: `step` of `steps`.
    LDM_EVENT_STEP = 2,
    /// A preview of an image: `image`.
    LDM_EVENT_PREVIEW = 3,
    /// A finished image: `image`.
    LDM_EVENT_IMAGE = 4,
    /// Something that deserves attention, although the run goes on.
    LDM_EVENT_WARNING = 5,
    /// The run is over.
    LDM_EVENT_DONE = 6,
}

/// Something that happened during a call. It lives until the callback returns.
#[repr(C)]
pub struct LdmEvent {
    /// The kind.
    pub kind: LdmEventKind,
    /// The step, counted from 1, and the number of steps, of LDM_EVENT_STEP and LDM_EVENT_PREVIEW; else 0.
    pub step: u32,
    pub steps: u32,
    /// The image of LDM_EVENT_PREVIEW and LDM_EVENT_IMAGE; else NULL.
    pub image: *const LdmImage,
    /// The event as a JSON object whose `event` names it, without pixels.
    pub json: *const c_char,
}

/// A function that is called with each event, on the thread that made the call. It must return normally, and must not call
/// functions of the pipeline that runs. `user` is what the caller gave.
pub type LdmObserver = Option<unsafe extern "C" fn(event: *const LdmEvent, user: *mut c_void)>;

/// Reports an event to a callback.
///
/// # Safety
/// The callback may be called with `user`.
pub(crate) unsafe fn report(observer: LdmObserver, user: *mut c_void, event: &Event, steps: &mut u32) {
    let Some(observer) = observer else { return };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut step = 0;
    let mut image = None;
    let kind = match event {
        Event::Loading { .. } => LdmEventKind::LDM_EVENT_LOADING,
        Event::Step { step: at, steps: total, .. } => {
            (step, *steps) = (count(*at), count(*total));
            LdmEventKind::LDM_EVENT_STEP
        }
        Event::Preview { step: at, width, height, rgb, image: index } => {
            step = count(*at);
            image = Some(LdmImage {
                width: count(*width),
                height: count(*height),
                index: *index,
                seed: 0,
                rgb: rgb.as_ptr(),
                rgb_length: rgb.len(),
                record: std::ptr::null(),
            });
            LdmEventKind::LDM_EVENT_PREVIEW
        }
        Event::Image(finished) => {
            image = Some(view_of(finished, std::ptr::null()));
            LdmEventKind::LDM_EVENT_IMAGE
        }
        Event::Warning { .. } => LdmEventKind::LDM_EVENT_WARNING,
        Event::Done { .. } => LdmEventKind::LDM_EVENT_DONE,
        _ => LdmEventKind::LDM_EVENT_OTHER,
    };
    let json = CString::new(event.to_json()).unwrap_or_default();
    let event = LdmEvent {
        kind,
        step,
        steps: if step > 0 { *steps } else { 0 },
        image: image.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        json: json.as_ptr(),
    };
    // SAFETY: the caller of the interface gave a function for this.
    unsafe { observer(&raw const event, user) };
}
