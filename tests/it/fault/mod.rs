//! What a machine can do to a store: cut the power, fill up, kill, stop, hide and change files.
//!
//! Everything here goes through the program and what it promises, never by the
//! names that the store gives to its files. What a machine cannot do is said
//! aloud, and is a failure where `CI` is set, so that a lost ability is noticed.

mod content;
mod damage;
mod full;
mod killed;
mod limits;
mod ordinary_user;
mod place;
mod power;
mod reflink;
mod two_users;

/// Returns what `probe` found. If it found nothing, says which `test` needs `what`, and `None` ends that test.
///
/// Where `CI` is set, that is a failure instead, unless `PV_ALLOW_UNTESTED` is set too.
#[expect(clippy::print_stderr, reason = "what a machine cannot show must be said aloud")]
pub(crate) fn needs<T>(test: &str, what: &str, probe: Result<T, String>) -> Option<T> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match probe {
        Ok(found) => Some(found),
        Err(why) if is_set("CI") && !is_set("PV_ALLOW_UNTESTED") => {
            panic!("NOT TESTED: {test} needs {what} (PV_ALLOW_UNTESTED=1 lets it pass): {why}")
        }
        Err(why) => {
            eprintln!("NOT TESTED: {test} needs {what}: {why}");
            None
        }
    }
}
