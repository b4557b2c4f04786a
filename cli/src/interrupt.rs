//! Ctrl-C: the first asks the command to stop cleanly, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts listening for Ctrl-C and for the termination signal. Without it they end the process as always, which loses
/// nothing either, so a failure to listen is only logged.
pub fn listen() {
    let listening = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    if let Err(error) = listening {
        tracing::warn!("could not listen for Ctrl-C: {error}");
    }
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
