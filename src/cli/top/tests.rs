//! The screen as text, at fixed sizes, and what keys do.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::model::{Answer, Key, Mode, Model, Order, Wish};
use super::reading::Event;
use super::screen::{Palette, draw};
use crate::control::snapshot::OperatorState;

/// When the first reading was made, and how many follow, one per second.
const BEGUN: u64 = 1_000_000;
const SECONDS: u64 = 40;

fn backend(name: &str, number: u64, second: u64) -> Value {
    let sessions = second * (2 + number) + second / 3 * (second % 7);
    json!({
        "pool": "pg", "name": name, "address": format!("10.0.0.{number}:5432"),
        "health": {"state": "up", "since": BEGUN - 5_000, "why": "2 probes succeeded"},
        "state": "ready", "weight": 1, "takes_sessions": true,
        "sessions_active": 10 * number, "sessions_total": sessions,
        "bytes_to_backend": sessions * 1_500, "bytes_to_client": sessions * 90_000,
        "connect_duration_seconds": {"count": sessions, "sum": sessions as f64 * 0.000_24},
        "first_byte_duration_seconds": {"count": sessions, "sum": sessions as f64 * 0.002_1},
    })
}

/// A pool of four, of which one is a backup, and one of datagrams.
fn status(second: u64) -> Value {
    let mut backup = backend("pg-backup", 14, second);
    backup["backup"] = json!(true);
    let resolver = json!({
        "pool": "dns", "name": "10.0.1.53:53", "address": "10.0.1.53:53",
        "health": {"state": "up", "since": BEGUN, "why": "it answers"},
        "state": "ready", "weight": 1, "takes_sessions": true, "flows_active": 31, "flows_total": second * 12,
        "bytes_sent": second * 900, "bytes_received": second * 4_000,
    });
    json!({
        "version": "1.2.3", "host": "lb1", "pid": 4711, "phase": "serving", "started": BEGUN - 90_000,
        "now": (BEGUN + second) as f64, "generation": 7, "config_hash": "0123456789abcdef",
        "sessions_active": 370, "sessions_total": second * 40, "max_sessions": 65_536,
        "flows_active": 31, "flows_total": second * 12, "max_flows": 9_000,
        "listeners": [
            {"name": "postgres", "addresses": ["10.0.0.100:5432"], "pools": [{"pool": "pg", "weight": 1}],
             "sessions_active": 370, "sessions_total": second * 40, "bytes_to_backend": second * 60_000,
             "bytes_to_client": second * 3_600_000, "refuses": null, "datagrams": null},
            {"name": "dns", "addresses": ["10.0.0.100:53", "[2001:db8::100]:53"],
             "pools": [{"pool": "dns", "weight": 1}],
             "flows_active": 31, "refuses": null,
             "datagrams": {"flows_total": second * 12, "bytes_received": second * 900, "bytes_sent": second * 4_000}},
        ],
        "pools": [
            {"name": "pg", "balance": "least_connections", "backends": [
                backend("pg1", 11, second), backend("pg2", 12, second), backend("pg3", 13, second), backup]},
            {"name": "dns", "balance": "hash", "backends": [resolver]},
        ],
        "virtual_routers": [
            {"name": "vip", "interface": "eth0", "vrid": 51, "addresses": ["10.0.0.100/32"], "state": "active",
             "since": BEGUN - 500, "priority": 254, "alarms": []},
        ],
    })
}

fn down(status: &mut Value, pool: usize, number: usize, why: &str) {
    let backend = &mut status["pools"][pool]["backends"][number];
    backend["health"] = json!({"state": "down", "since": BEGUN + SECONDS - 12, "why": why});
    backend["takes_sessions"] = json!(false);
}

fn operated(status: &mut Value, number: usize, state: &str) {
    let backend = &mut status["pools"][0]["backends"][number];
    backend["state"] = json!(state);
    backend["why_not"] = json!(format!("the operator says {state}"));
    backend["takes_sessions"] = json!(false);
}

fn events() -> Value {
    json!([
        {"id": 1, "at": BEGUN - 4_000, "kind": "backend",
         "facts": {"pool": "pg", "backend": "pg1", "up": true, "why": "2 probes succeeded"}},
        {"id": 2, "at": BEGUN - 500, "kind": "virtual_router",
         "facts": {"virtual_router": "vip", "from": "backup", "to": "active", "priority": 254,
                   "why": "no other router is heard"}},
        {"id": 3, "at": BEGUN + 20, "kind": "backend", "facts": {"pool": "pg", "backend": "pg3", "state": "drain"}},
        {"id": 4, "at": BEGUN + 28, "kind": "backend",
         "facts": {"pool": "pg", "backend": "pg2", "up": false, "why": "3 probes failed: connect: connection refused"}},
        {"id": 5, "at": BEGUN + 28, "kind": "listener", "facts": {"listener": "dns", "open": false}},
    ])
}

#[test]
fn events_are_told_in_words() {
    for (kind, facts, text) in [
        (
            "reload",
            json!({"generation": 7, "difference": "1 backend added"}),
            "reload: 1 backend added",
        ),
        (
            "reload_failed",
            json!({"error": "error: the key `pools` is missing\n --> ringway.yaml:1:1"}),
            "reload failed: the key `pools` is missing",
        ),
        ("log_level", json!({"level": "debug"}), "log level debug"),
        (
            "sessions_closed",
            json!({"sessions": 1}),
            "1 session ended by the operator",
        ),
        (
            "sessions_closed",
            json!({"sessions": 0}),
            "0 sessions ended by the operator",
        ),
        (
            "backend",
            json!({"pool": "p", "backend": "b", "added": true}),
            "p/b added by the operator",
        ),
        (
            "backend",
            json!({"pool": "p", "backend": "b", "max_sessions": null}),
            "p/b max-sessions none",
        ),
        ("of_later", json!({"what": 5}), "of later: what 5"),
    ] {
        let event = json!({"id": 1, "at": 5, "kind": kind, "facts": facts});
        let event: Event = serde_json::from_value(event).unwrap();
        assert_eq!(event.words().1, text);
    }
}

fn answer(status: Value) -> Answer {
    Answer {
        reading: serde_json::from_value(status).unwrap(),
        events: Vec::new(),
    }
}

/// After so many readings, the last of which is changed.
fn model(change: impl Fn(&mut Value)) -> Model {
    let mut model = Model::new(answer(status(0)), BEGUN as f64);
    for second in 1..=SECONDS {
        let mut status = status(second);
        if second == SECONDS {
            change(&mut status);
        }
        let mut answer = answer(status);
        if second == SECONDS {
            answer.events = serde_json::from_value(events()).unwrap();
        }
        model.answered(answer, (BEGUN + second) as f64);
    }
    model
}

fn press(model: &mut Model, keys: &str) -> Option<Order> {
    let mut order = None;
    for key in keys.chars() {
        order = model.key(match key {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            letter => Key::Letter(letter),
        });
    }
    order
}

fn drawn(model: &Model, width: u16, height: u16, has_colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, model, Palette { has_colours });
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn shown(model: &Model, width: u16, height: u16) -> String {
    let buffer = drawn(model, width, height, true);
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    let lines = (0..height).map(|y| line(y).trim_end().to_owned() + "\n");
    lines.collect()
}

const REFUSED: &str = "3 probes failed: connect: connection refused";

#[test]
fn everything_well() {
    let model = model(|_| {});
    insta::assert_snapshot!("well_80x24", shown(&model, 80, 24));
    insta::assert_snapshot!("well_120x40", shown(&model, 120, 40));
}

#[test]
fn a_backend_is_down_and_one_drains() {
    let mut model = model(|status| {
        down(status, 0, 1, REFUSED);
        operated(status, 2, "drain");
        status["pools"][0]["backends"][2]["drain_until"] = json!(BEGUN + SECONDS + 29);
    });
    insta::assert_snapshot!("trouble_80x24", shown(&model, 80, 24));
    insta::assert_snapshot!("trouble_120x40", shown(&model, 120, 40));
    press(&mut model, "t");
    insta::assert_snapshot!("trouble_only_80x24", shown(&model, 80, 24));
}

#[test]
fn a_pool_without_a_usable_backend_has_a_banner() {
    let model = model(|status| {
        for number in 0..2 {
            down(status, 0, number, REFUSED);
        }
        operated(status, 2, "maintenance");
        down(status, 0, 3, "connect: no answer within 1s");
        let why = "no backend is usable: 3 down, 1 in maintenance";
        status["listeners"][0]["refuses"] = json!({"since": BEGUN + SECONDS - 12, "why": why});
        status["virtual_routers"][0]["state"] = json!("backup");
        status["virtual_routers"][0]["active_router"] = json!("10.0.0.2");
        status["virtual_routers"][0]["fault"] =
            json!("pool pg: 0 of 4 backends take sessions, 1 wanted");
        status["virtual_routers"][0]["alarms"] =
            json!([{"since": BEGUN, "what": "10.0.0.2 advertises other addresses"}]);
    });
    insta::assert_snapshot!("no_usable_80x24", shown(&model, 80, 24));
    insta::assert_snapshot!("no_usable_120x40", shown(&model, 120, 40));
}

#[test]
fn a_drain_is_asked_about_first() {
    let mut model = model(|_| {});
    assert_eq!(press(&mut model, "jd"), None);
    insta::assert_snapshot!("confirm_80x24", shown(&model, 80, 24));
    assert_eq!(press(&mut model, "xj"), None, "other keys do nothing");
    assert_eq!(press(&mut model, "n"), None);
    assert_eq!(model.mode, Mode::List);
    let wish = Wish {
        pool: "pg".to_owned(),
        backend: "pg2".to_owned(),
        state: OperatorState::Drain,
    };
    assert_eq!(press(&mut model, "dy"), Some(Order::Operate(wish)));
    model.operated(
        Ok("pg/pg2: drain (on this node only)".to_owned()),
        model.now,
    );
    assert!(shown(&model, 80, 24).contains("pg/pg2: drain (on this node only)"));
    model.tick(model.now + 60.0);
    assert!(!shown(&model, 80, 24).contains("pg/pg2: drain"));
}

#[test]
fn the_last_usable_backend_is_called_that_and_what_is_so_already_is_not_asked_about() {
    let mut model = model(|status| {
        for number in [1, 2, 3] {
            down(status, 0, number, REFUSED);
        }
    });
    press(&mut model, "m");
    let text = shown(&model, 120, 40);
    assert!(
        text.contains("maintenance pg/pg1? THE LAST USABLE ONE of pool pg"),
        "{text}"
    );
    press(&mut model, "nr");
    assert_eq!(model.mode, Mode::List);
    assert!(shown(&model, 80, 24).contains("pg/pg1: ready already"));
}

#[test]
fn a_process_that_does_not_answer_is_shown_and_one_that_comes_back_starts_anew() {
    let mut model = model(|_| {});
    let later = model.now + 4.0;
    model.failed(
        "nothing answers at /run/ringway/admin.sock".to_owned(),
        later,
    );
    insta::assert_snapshot!("disconnected_80x24", shown(&model, 80, 24));
    let mut again = status(SECONDS + 5);
    again["pid"] = json!(4712);
    model.answered(answer(again), later + 1.0);
    let text = shown(&model, 80, 24);
    assert!(!text.contains("NOT CONNECTED"), "{text}");
    assert_eq!(model.tracks.process.rates(), None, "it counts from nothing");
    assert!(model.events.is_empty());
    model.tick(later + 9.0);
    assert!(shown(&model, 80, 24).contains("it takes long to answer"));
}

#[test]
fn small_terminals_show_what_fits_and_tiny_ones_say_what_they_lack() {
    let mut model = model(|status| down(status, 0, 1, REFUSED));
    insta::assert_snapshot!("small_60x14", shown(&model, 60, 14));
    insta::assert_snapshot!("tiny_30x5", shown(&model, 30, 5));
    for mode in [Mode::List, Mode::Filter, Mode::Help] {
        model.mode = mode;
        for width in [0, 1, 7, 39, 40, 41, 79, 109, 110, 300] {
            for height in [0, 1, 7, 8, 9, 13, 19, 24, 29, 30, 100] {
                drawn(&model, width, height, true);
            }
        }
    }
}

#[test]
fn the_keys_are_explained() {
    let mut model = model(|_| {});
    press(&mut model, "?");
    insta::assert_snapshot!("help_80x24", shown(&model, 80, 24));
    assert_eq!(press(&mut model, "q"), None, "any key leads back");
    assert_eq!(press(&mut model, "q"), Some(Order::Quit));
}

#[test]
fn hundreds_of_backends_scroll_and_the_selected_one_is_in_sight() {
    let mut model = model(|status| {
        let many = (0..500).map(|number| backend(&format!("pg{number:03}"), number, SECONDS));
        status["pools"][0]["backends"] = many.collect();
    });
    for place in [0, 1, 250, 498, 499] {
        press(&mut model, "g");
        for _ in 0..place {
            press(&mut model, "j");
        }
        let text = shown(&model, 80, 24);
        assert!(
            text.contains(&format!("> pg{place:03} ")),
            "{place}\n{text}"
        );
    }
    press(&mut model, "G");
    assert!(shown(&model, 80, 24).contains("> 10.0.1.53:53"));
    press(&mut model, "gs");
    press(&mut model, "s");
    let text = shown(&model, 80, 24);
    assert!(
        text.contains("most sessions first") && text.contains("> pg000"),
        "{text}"
    );
}

#[test]
fn a_filter_is_typed_kept_and_ended() {
    let mut model = model(|_| {});
    press(&mut model, "/PG3");
    let text = shown(&model, 80, 24);
    assert!(
        text.contains("filter: PG3") && text.contains("> pg3"),
        "{text}"
    );
    assert!(!text.contains("  pg2 "), "{text}");
    press(&mut model, "\n");
    assert_eq!(model.selected().unwrap().name, "pg3");
    press(&mut model, "\u{1b}");
    let text = shown(&model, 80, 24);
    assert!(text.contains("> pg3") && text.contains("  pg2 "), "{text}");
    press(&mut model, "/nothing has this");
    let text = shown(&model, 80, 24);
    assert!(text.contains("nothing matches the filter"), "{text}");
    assert_eq!(press(&mut model, "\nd"), None, "nothing is selected");
}

#[test]
fn colours_can_be_left_out_and_names_bring_no_control_characters() {
    let model = model(|status| {
        down(status, 0, 1, "\u{1b}[31mred\u{7}");
        operated(status, 2, "drain");
    });
    let with = drawn(&model, 120, 40, true);
    assert!(with.content().iter().any(|cell| cell.fg == Color::Red));
    let without = drawn(&model, 120, 40, false);
    for cell in without.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        assert!(!cell.symbol().chars().any(char::is_control), "{cell:?}");
    }
    assert!(
        without
            .content()
            .iter()
            .any(|cell| cell.modifier.contains(Modifier::REVERSED))
    );
}
