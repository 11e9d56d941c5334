//! Simulations seed after seed, for their tests. It knows nothing of what is played.

use std::fmt::Debug;

/// Plays each seed and collects what came of it; on a panic the seed is in the message. With `RINGWAY_SEED` that one
/// alone is played, and there is nothing to compare: none.
pub(crate) fn play_all<T>(
    seeds: u64,
    tier: impl Debug + Copy,
    play: impl Fn(u64) -> T,
) -> Option<Vec<T>> {
    let named = |seed| {
        let _name = Name(seed, tier);
        play(seed)
    };
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        named(seed.parse().expect("RINGWAY_SEED is a number"));
        return None;
    }
    Some((0..seeds).map(named).collect())
}

/// The seed that is being played, and with what.
struct Name<T: Debug>(u64, T);

impl<T: Debug> Drop for Name<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RINGWAY_SEED={} with {:?}", self.0, self.1);
        }
    }
}
