//! Inputs that may have to be waited for, such as standard input and pipes with names: a thread of their own opens and
//! reads them, so that Ctrl-C is heard while nothing comes. That thread is left behind when the reading ends early; it ends
//! with the process.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::interrupt;

/// How often it is asked whether to go on: our choice, at once for whoever presses Ctrl-C.
const ASKED_MS: u64 = 100;
/// What is read at once: as much as a pipe holds on Linux.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Reads what the thread has read.
pub struct Patient {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Cursor<Vec<u8>>,
    is_over: Arc<AtomicBool>,
}

impl Patient {
    /// Begins to open and read. While it waits, it looks now and then whether it `is_over`, or Ctrl-C was pressed; then
    /// reading is an error.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn new<R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
        is_over: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        thread::Builder::new().name("input".to_owned()).spawn(move || match open() {
            Ok(from) => hand_over(from, &sender),
            // Whoever stopped listening needs no answer.
            Err(error) => drop(sender.send(Err(error))),
        })?;
        Ok(Self { chunks, chunk: Cursor::default(), is_over })
    }
}

fn hand_over(mut from: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = read.is_err();
        if sender.send(read).is_err() || is_last {
            return;
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.chunk.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            match self.chunks.recv_timeout(Duration::from_millis(ASKED_MS)) {
                Ok(chunk) => self.chunk = Cursor::new(chunk?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                // Not the kind `Interrupted`, at which readers try again.
                Err(RecvTimeoutError::Timeout) if self.is_over.load(Ordering::Relaxed) || interrupt::asked() => {
                    return Err(io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_in_order_and_an_error_comes_after_what_was_read() {
        let text: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let content = text.clone();
        let mut patient = Patient::new(move || Ok(Cursor::new(content)), Arc::default()).unwrap();
        let mut read = Vec::new();
        patient.read_to_end(&mut read).unwrap();
        assert!(read == text);
        let open = || Err::<io::Empty, _>(io::Error::other("not there"));
        let error = Patient::new(open, Arc::default()).unwrap().read(&mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "not there");
    }

    #[test]
    fn whoever_waits_for_a_pipe_hears_that_it_is_over() {
        let (reader, writer) = io::pipe().unwrap();
        let error =
            Patient::new(move || Ok(reader), Arc::new(AtomicBool::new(true))).unwrap().read(&mut [0]).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::Interrupted);
        drop(writer);
    }
}
