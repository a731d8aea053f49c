//! Panics of a dependency as values, without a trace on any stream.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// This thread is inside [`catch`]: what panics here is not printed.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last caught panic was raised.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic in it becomes an error that says what was panicked about, and where.
///
/// A damaged file makes redb panic in places. The streams of this process belong to CNI and to the log, so the hook of
/// the process is wrapped once: it stays silent for threads that are in here and is as before for all others. What
/// `work` had in its hands when it panicked must not be used again; the caller sees to that.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static WRAPPED: Once = Once::new();
    WRAPPED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                note_place(info);
            } else {
                previous(info);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.map_err(|payload| match PLACE.take() {
        Some(place) => format!("{} ({place})", said(payload.as_ref())),
        None => said(payload.as_ref()),
    })
}

fn note_place(info: &PanicHookInfo<'_>) {
    let Some(location) = info.location() else { return };
    // The folders above a crate are those of the machine that built it, and say nothing.
    let file = location.file();
    let short = file.rfind("/src/").and_then(|end| file.get(..end)).and_then(|parent| parent.rfind('/'));
    let short = short.and_then(|slash| file.get(slash + 1..)).unwrap_or(file);
    PLACE.set(Some(format!("{short}:{}", location.line())));
}

fn said(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_place() {
        let caught: Result<(), String> = catch(|| panic!("page {} is gone", 7));
        let text = caught.unwrap_err();
        assert!(text.starts_with("page 7 is gone ("), "{text}");
        assert!(text.contains("panics.rs:"), "{text}");
        assert_eq!(catch(|| 5), Ok(5));
    }

    #[test]
    fn a_panic_inside_a_panic_is_two_errors() {
        let outer = catch(|| {
            let inner: Result<(), String> = catch(|| panic!("inner"));
            assert!(inner.unwrap_err().starts_with("inner"));
            panic!("outer")
        });
        let outer: Result<(), String> = outer;
        assert!(outer.unwrap_err().starts_with("outer"));
    }
}
