//! Contains panics of third-party parsers.
//!
//! Parsers of other crates read files from any source, and some of them panic on unexpected input. Such a panic is
//! caught here and becomes an error message. Failures that cannot be caught (stack overflow, abort, out of memory) have
//! to be ruled out before a parser is called.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// True while this thread is inside [`contain`].
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The message of a panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its parser failed: {0}")]
pub struct ParserPanic(pub String);

/// Calls `parse` and returns its result, or the message of its panic without printing it.
///
/// A panic can leave values that `parse` changes by reference in an inconsistent state: drop them. Panics on threads
/// that `parse` starts are printed.
///
/// # Errors
/// [`ParserPanic`] if `parse` panics.
pub fn contain<T>(parse: impl FnOnce() -> T) -> Result<T, ParserPanic> {
    silence_contained_panics();
    let outer = IS_CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(parse));
    IS_CONTAINED.set(outer);
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        ParserPanic(message.to_owned())
    })
}

/// Installs a panic hook that forwards only panics outside [`contain`] to the previous hook.
fn silence_contained_panics() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            // The thread-local is gone while its thread ends; nothing is contained then.
            if !IS_CONTAINED.try_with(Cell::get).unwrap_or(false) {
                report(panic);
            } else if let Some(place) = panic.location() {
                tracing::debug!("a parser panicked at {}:{}", place.file(), place.line());
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contain(|| 7), Ok(7));
        assert_eq!(contain(|| -> u8 { panic!("plain") }), Err(ParserPanic("plain".into())));
        let index = std::hint::black_box(3);
        let error = contain(|| [1, 2, 3].get(index).copied().expect("a fourth")).unwrap_err();
        assert_eq!(error.to_string(), "its parser failed: a fourth");
        assert_eq!(contain(|| [1, 2, 3][index]).unwrap_err().0, "index out of bounds: the len is 3 but the index is 3");
    }

    #[test]
    fn only_the_inside_is_silent() {
        let nested = contain(|| {
            let inner = contain(|| panic!("inner"));
            assert!(IS_CONTAINED.get(), "the outer one goes on");
            inner
        });
        assert_eq!(nested, Ok(Err(ParserPanic("inner".into()))));
        assert!(!IS_CONTAINED.get());
    }
}
