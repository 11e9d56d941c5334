//! Fuzzes the configuration reader: whatever the bytes are, it says something and ends; and what loads is printed as a
//! file that loads to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::config::parse;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = parse(text, "fuzz.yaml", "lb1");
    let shown = loaded.report.render(false, 140);
    assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'), "{shown:?}");
    let _ = loaded.report.to_json();
    let Some(config) = loaded.config else {
        assert!(loaded.report.counts().0 > 0, "nothing is wrong, and there is no configuration");
        return;
    };
    let printed = config.to_yaml();
    let again = parse(&printed, "printed.yaml", "lb2");
    let Some(again) = again.config else { panic!("{printed}\n{}", again.report) };
    assert!(again == config, "{printed}");
    assert_eq!(format!("{:?}", again.snapshot), format!("{:?}", config.snapshot));
    assert_eq!(again.to_yaml(), printed);
});
