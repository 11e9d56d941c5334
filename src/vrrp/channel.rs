//! A bounded channel whose receiver waits in poll(2): what is sent is followed by a byte in an eventfd.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;

/// The sending end.
#[derive(Debug)]
pub(super) struct Sender<T> {
    messages: crossbeam_channel::Sender<T>,
    wake: Arc<EventFd>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            messages: self.messages.clone(),
            wake: Arc::clone(&self.wake),
        }
    }
}

impl<T> Sender<T> {
    pub(super) fn new(messages: crossbeam_channel::Sender<T>, wake: Arc<EventFd>) -> Sender<T> {
        Sender { messages, wake }
    }

    /// Waits while the channel is full. A receiver that is gone wants nothing any more.
    pub(super) fn send(&self, message: T) {
        if self.messages.send(message).is_ok() {
            self.wake();
        }
    }

    /// Never waits; whether it was sent.
    pub(super) fn try_send(&self, message: T) -> bool {
        let is_sent = self.messages.try_send(message).is_ok();
        if is_sent {
            self.wake();
        }
        is_sent
    }

    fn wake(&self) {
        // A counter of 64 bits that is read again and again does not fill up.
        let _ = self.wake.write(1);
    }
}
