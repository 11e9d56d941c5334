//! What listeners and pools inherit: a file with `defaults` means the same as one with everything written out.

use ringway::config::{self, Config};

use super::{HOST, said};

fn used(text: &str) -> Config {
    let loaded = config::parse(text, "file.yaml", HOST);
    assert!(loaded.config.is_some(), "{text}\n{}", said(&loaded));
    assert_eq!(loaded.report.counts(), (0, 0), "{text}\n{}", said(&loaded));
    loaded.config.unwrap()
}

/// A file with one listener and one pool.
fn file(defaults: &str, listener: &str, pool: &str) -> String {
    format!("defaults: {defaults}\nlisteners: [{listener}]\npools: {{p: {pool}}}\n")
}

const LISTENER: &str = "{bind: \"10.0.0.1:80\", pool: p}";

#[test]
fn a_pool_means_the_same_with_what_it_inherits_and_written_out() {
    for (defaults, pool, written_out) in [
        // Null inherits like an empty map.
        (
            "{pool: {backends: [\"b:1\"], retries: 1}}",
            "",
            "{backends: [\"b:1\"], retries: 1}",
        ),
        (
            "{pool: {timeouts: {idle: 5m}, probe: {type: http, http: {path: /x}}}}",
            "{backends: [\"b:1\"], timeouts: , probe: }",
            "{backends: [\"b:1\"], timeouts: {idle: 5m}, probe: {type: http, http: {path: /x}}}",
        ),
        // Values for each host, of the defaults and of the pool.
        (
            "{lb1: {pool: {retries: 1}}, lb2: {pool: {retries: 0}}}",
            "[\"b:1\"]",
            "{backends: [\"b:1\"], retries: 1}",
        ),
        (
            "{pool: {lb1: {retries: 1, timeouts: {idle: 7m}}, lb2: {retries: 0}}}",
            "[\"b:1\"]",
            "{backends: [\"b:1\"], retries: 1, timeouts: {idle: 7m}}",
        ),
        (
            "{pool: {timeouts: {idle: 5m, connect: 9s}}}",
            "{backends: [\"b:1\"], timeouts: {lb1: {idle: 1m}, lb2: {idle: 2m}}}",
            "{backends: [\"b:1\"], timeouts: {idle: 1m, connect: 9s}}",
        ),
        (
            "{pool: {timeouts: {lb1: {idle: 5m, connect: 9s}, lb2: {idle: 2m}}}}",
            "{backends: [\"b:1\"], timeouts: {idle: 1m}}",
            "{backends: [\"b:1\"], timeouts: {idle: 1m, connect: 9s}}",
        ),
        (
            "{pool: {timeouts: {lb1: {idle: 5m, connect: 9s}, lb2: {idle: 2m}}}}",
            "{backends: [\"b:1\"], timeouts: {lb1: {idle: 1m}, lb2: }}",
            "{backends: [\"b:1\"], timeouts: {idle: 1m, connect: 9s}}",
        ),
        (
            "{pool: {probe: {interval: 7s}}}",
            "{backends: {lb1: [\"b:1\"], lb2: [\"b:2\"]}, probe: {lb1: tcp, lb2: none}}",
            "{backends: [\"b:1\"], probe: {type: tcp, interval: 7s}}",
        ),
        (
            "{pool: {probe: {interval: 7s}}}",
            "{backends: [\"b:1\"], probe: {lb1: none, lb2: {type: tcp}}}",
            "{backends: [\"b:1\"], probe: none}",
        ),
        // Another choice leaves what belongs to the default's.
        (
            "{pool: {probe: {type: http, http: {path: /x}, rise: 7}}}",
            "{backends: [\"b:1\"], probe: tcp}",
            "{backends: [\"b:1\"], probe: {type: tcp, rise: 7}}",
        ),
        (
            "{pool: {probe: {type: http, http: {path: /x}, interval: 5s}}}",
            "{backends: [\"b:1\"], probe: none}",
            "{backends: [\"b:1\"], probe: none}",
        ),
        (
            "{pool: {probe: {type: http, http: {path: /x}}}}",
            "{backends: [\"b:1\"], probe: {type: {lb1: tcp, lb2: http}}}",
            "{backends: [\"b:1\"], probe: tcp}",
        ),
        (
            "{pool: {probe: {type: send_expect, send: a, expect: b}}}",
            "{backends: [\"b:1\"], probe: {type: http, http: {path: /x}}}",
            "{backends: [\"b:1\"], probe: {type: http, http: {path: /x}}}",
        ),
        (
            "{pool: {probe: {type: http, http: {path: /x, status: 200}}}}",
            "{backends: [\"b:1\"], probe: {type: http, http: {path: /y}}}",
            "{backends: [\"b:1\"], probe: {type: http, http: {path: /y, status: 200}}}",
        ),
        (
            "{pool: {balance: hash, hash_key: source}}",
            "{backends: [\"b:1\"], balance: first}",
            "{backends: [\"b:1\"], balance: first}",
        ),
        (
            "{pool: {passive: {failures: 9, retry_after: 1s}}}",
            "{backends: [\"b:1\"], passive: {failures: none}}",
            "{backends: [\"b:1\"], passive: {failures: none}}",
        ),
    ] {
        let inherits = used(&file(defaults, LISTENER, pool));
        let written_out = used(&file("{}", LISTENER, written_out));
        assert!(
            inherits == written_out,
            "{defaults} and {pool} are\n{}\nnot\n{}",
            inherits.to_yaml(),
            written_out.to_yaml()
        );
    }
}

#[test]
fn a_listener_means_the_same_with_what_it_inherits_and_written_out() {
    for (defaults, listener, written_out) in [
        (
            "{listener: {bind: {freebind: true}}}",
            LISTENER,
            "{bind: {address: \"10.0.0.1:80\", freebind: true}, pool: p}",
        ),
        (
            "{listener: {bind: {freebind: true}}}",
            "{bind: [\"10.0.0.1:80\", {address: \"10.0.0.2:80\", freebind: false}], pool: p}",
            "{bind: [{address: \"10.0.0.1:80\", freebind: true}, \
              {address: \"10.0.0.2:80\", freebind: false}], pool: p}",
        ),
        (
            "{listener: {pool: q}}",
            "{bind: \"10.0.0.1:80\", split: [{pool: p}]}",
            "{bind: \"10.0.0.1:80\", split: [{pool: p}]}",
        ),
        ("{listener: {split: [{pool: q}]}}", LISTENER, LISTENER),
        (
            "{listener: {backlog: 7}}",
            "{lb1: {bind: \"10.0.0.1:80\", pool: p}, lb2: {bind: \"10.0.0.2:80\", pool: p}}",
            "{bind: \"10.0.0.1:80\", pool: p, backlog: 7}",
        ),
        (
            "{listener: {lb1: {backlog: 7}, lb2: {backlog: 8}}}",
            LISTENER,
            "{bind: \"10.0.0.1:80\", pool: p, backlog: 7}",
        ),
    ] {
        let inherits = used(&file(defaults, listener, "[\"b:1\"]"));
        let written_out = used(&file("{}", written_out, "[\"b:1\"]"));
        assert!(
            inherits == written_out,
            "{defaults} and {listener} are\n{}\nnot\n{}",
            inherits.to_yaml(),
            written_out.to_yaml()
        );
    }
}

#[test]
fn nobody_is_warned_of_what_is_inherited_and_has_no_effect_here() {
    let idle = "{listener: {bind: {freebind: true}}, pool: {source: 10.0.0.5, hash_key: source, on_up: close_backup}}";
    let text = |defaults: &str| {
        format!(
            "defaults: {defaults}\n\
             listeners: [{{bind: [\"unix:/run/x\", \"*:1\"], pool: p}}]\n\
             pools: {{p: [\"unix:/run/y\"]}}\n"
        )
    };
    used(&text(idle));
    // In another order of the file, too, and only of what stands there.
    used(&format!("x-a: 1\n{}x-b: 2\n", text(idle)));
    let written = "listeners: [{bind: [\"*:1\"], pool: p}]\n\
                    pools: {p: {backends: [\"unix:/run/y\"], source: 10.0.0.5}}\ndefaults: {pool: {retries: 1}}\n";
    let loaded = config::parse(written, "file.yaml", HOST);
    assert_eq!(loaded.report.counts(), (0, 1), "{}", said(&loaded));
}

#[test]
fn lists_of_listeners_for_each_host_inherit() {
    let text = "defaults: {listener: {backlog: 77}}\n\
                listeners:\n  lb1: [{bind: \"10.0.0.1:80\", pool: p}]\n  lb2: {bind: \"10.0.0.2:80\", pool: p}\n\
                pools: {p: [\"b:1\"]}\n";
    for host in ["lb1", "lb2"] {
        let loaded = config::parse(text, "file.yaml", host);
        let config = loaded
            .config
            .as_ref()
            .unwrap_or_else(|| panic!("{}", said(&loaded)));
        assert_eq!(config.snapshot.listeners[0].backlog, 77, "{host}");
    }
}

#[test]
fn what_the_defaults_may_have_is_valid_for_an_editor() {
    let schema = config::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let text = file(
        "{listener: {bind: {freebind: true}}}",
        LISTENER,
        "[\"b:1\"]",
    );
    used(&text);
    assert!(
        validator.is_valid(&serde_saphyr::from_str(&text).unwrap()),
        "{text}"
    );
    let text = file("{pool: {backends: [{weight: 1}]}}", LISTENER, "[\"b:1\"]");
    assert!(
        !validator.is_valid(&serde_saphyr::from_str(&text).unwrap()),
        "{text}"
    );
}
