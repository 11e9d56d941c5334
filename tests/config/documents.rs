//! Configurations made up for tests.

use std::fmt::Write as _;

/// One pool for each listener, with the backends spread over the pools.
pub(crate) fn large(listeners: usize, backends: usize) -> String {
    let mut text = String::from("listeners:\n");
    for number in 0..listeners {
        let _ = writeln!(
            text,
            "  - {{name: l{number}, bind: \"10.0.0.1:{}\", pool: p{number}}}",
            1_000 + number
        );
    }
    text.push_str("pools:\n");
    for number in 0..listeners {
        let _ = writeln!(text, "  p{number}:\n    backends:");
        for backend in (number..backends).step_by(listeners) {
            let (high, low) = (backend / 256, backend % 256);
            let _ = writeln!(
                text,
                "      - {{name: b{backend}, address: 10.1.{high}.{low}:5432, weight: 10}}"
            );
        }
    }
    text
}
