//! The input forms of a bulk emit, and errors that do not stop it.

use std::io::Write;

use super::support::Home;

#[test]
fn a_bulk_emit_continues_after_a_broken_pipe() {
    let home = Home::new();
    let numbers: String = (0..3_000).map(|n| format!("{n}\n")).collect();
    home.file("lines", &numbers);
    let ran = home.shell("{ $EVBUS emit n --ndjson @lines; echo $? >&2; } | head -n 1");
    assert_eq!((ran.err.as_str(), home.event_count()), ("0\n", 3_000));
}

#[test]
fn a_full_stdout_reports_events_already_on_the_bus() {
    let home = Home::new();
    let ran = home.shell("$EVBUS emit t > /dev/full").exits(1);
    ran.says("cannot write to stdout: no space left on device; 1 event is on the bus all the same", "");
    let ran = home.shell("seq 9 | $EVBUS emit t --ndjson > /dev/full").exits(1);
    home.snapshot("a_full_stdout_reports_events_already_on_the_bus", &ran);
    assert_eq!(home.event_count(), 10);
}

#[test]
fn an_array_is_a_batch() {
    let home = Home::new();
    let event = |id: u32| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\",\"data\":\"],[\"}}")
    };
    home.file("batch", &format!("\u{feff} [{},\n {} ,{}\n]\n", event(1), event(2), event(3)));
    assert_eq!(home.run(&["emit", "--ndjson", "@batch"]).exits(0).lines(), ["1", "2", "3"]);
    // Also where another flag stands between.
    assert_eq!(home.run(&["emit", "--ndjson", "--json", "@batch"]).exits(0).lines().len(), 3);
    home.file("data", "[\n  {\"a\": [1, \"\\\"]\"]},\n  2\n]\n");
    assert_eq!(home.run(&["emit", "d", "--ndjson", "@data"]).exits(0).lines().len(), 2);
    assert_eq!(home.feed(&["emit", "d", "--ndjson"], "[]").exits(0).lines().len(), 1, "a line of data");
    assert_eq!(home.feed(&["emit", "--ndjson"], "[ ]").exits(0).lines().len(), 0);
    let ran = home.feed(&["emit", "--ndjson"], &format!("[{},{{\"a\":1}}]", event(4))).exits(2);
    home.snapshot("an_array_is_a_batch", &ran);
    home.feed(&["emit", "--ndjson"], &format!("[{}", event(5)))
        .exits(2)
        .says("element 1: the array ends too early", "");
    home.feed(&["emit", "--ndjson"], &format!("[,{}]", event(5))).exits(2).says("element 1: nothing stands before", "");
}

/// A regression: the line was skipped, and the exit code was 0.
#[test]
fn input_after_an_array_is_refused() {
    let home = Home::new();
    for (number, input) in ["[1,\n2]\n[3]\n", "[1,\n2]x", "[1,2] [3]", "[1,\n2],[3]", "[1,\n2]]"].iter().enumerate() {
        for more in [&[][..], &["--on-error", "skip"]] {
            let ran = home.feed(&[&["emit", "d", "--ndjson"], more].concat(), input).exits(2);
            let kind = if more.is_empty() { "stop" } else { "skip" };
            home.snapshot(&format!("input_after_an_array_is_refused-{number}-{kind}"), &ran);
            assert_eq!(ran.lines().len(), 2, "{input}");
        }
        assert_eq!(home.event_count(), 4 * (number + 1));
    }
    assert_eq!(home.feed(&["emit", "d", "--ndjson"], "[1,\n2] \n\n").exits(0).lines().len(), 2);
}

#[test]
fn a_line_over_the_limit_is_reported() {
    let home = Home::new();
    let long = format!("1\n\"{}\"\n3\n", "x".repeat(2 << 20));
    let ran = home.feed(&["emit", "d", "--ndjson"], &long).exits(2);
    home.snapshot("a_line_over_the_limit_is_reported", &ran);
    let skip = ["emit", "d", "--ndjson", "--on-error", "skip", "--rejects", "rejects"];
    let ran = home.feed(&skip, &long).exits(0);
    home.snapshot("a_line_over_the_limit_is_reported-2", &ran);
    assert_eq!(ran.lines().len(), 2);
}

#[test]
fn gzip_input_is_decompressed() {
    let home = Home::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for n in 0..1_000 {
        writeln!(packed, "{{\"n\":{n}}}").unwrap();
    }
    std::fs::write(home.path().join("lines.gz"), packed.finish().unwrap()).unwrap();
    assert_eq!(home.run(&["emit", "t", "--ndjson", "@lines.gz", "-q"]).exits(0).out, "");
    home.shell("$EVBUS emit t --ndjson -q < lines.gz").exits(0);
    assert_eq!(home.event_count(), 2_000);
    let whole = std::fs::read(home.path().join("lines.gz")).unwrap();
    std::fs::write(home.path().join("cut.gz"), &whole[..whole.len() / 2]).unwrap();
    let ran = home.run(&["emit", "t", "--ndjson", "@cut.gz", "-q"]).exits(1);
    home.snapshot("gzip_input_is_decompressed", &ran);
}

#[test]
fn bad_lines_are_skipped_counted_and_kept() {
    let home = Home::new();
    let lines = "\u{feff}1\nnone\n\n{\"a\":\n2\n1e999\n";
    let ran = home.feed(&["emit", "t", "--ndjson", "--on-error", "skip", "--rejects", "bad"], lines).exits(0);
    assert_eq!(
        (ran.out.lines().count(), home.lines("bad")),
        (2, ["none", "{\"a\":", "1e999"].map(str::to_owned).to_vec())
    );
    home.snapshot("bad_lines_are_skipped_counted_and_kept", &ran);
    // The rejects of an earlier run are kept.
    home.feed(&["emit", "t", "--ndjson", "--on-error", "skip", "--rejects", "bad"], "worse\n").exits(0);
    assert_eq!(home.lines("bad"), ["none", "{\"a\":", "1e999", "worse"]);
    let ran = home.feed(&["emit", "t", "--ndjson"], lines).exits(2);
    home.snapshot("bad_lines_are_skipped_counted_and_kept-2", &ran);
    home.feed(&["emit", "t", "--rejects", "bad"], "").exits(2);
}

#[test]
fn invalid_utf8_is_reported_or_replaced() {
    let home = Home::new();
    let emit = |flags: &str| home.shell(&format!("printf 'ok\\nb\\377d\\n' | $EVBUS emit t --text --ndjson {flags}"));
    let ran = emit("").exits(2);
    home.snapshot("invalid_utf8_is_reported_or_replaced", &ran);
    assert_eq!(emit("--lossy").exits(0).lines().len(), 2);
    let last = std::fs::read_to_string(home.events().last().unwrap()).unwrap();
    assert!(last.contains("\"b\u{fffd}d\""), "{last}");
}

#[test]
fn an_invalid_event_gets_no_misleading_help() {
    let home = Home::new();
    let event = "{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"/s\",\"type\":\"t\"}";
    let ran = home.feed(&["emit", "--ndjson"], event).exits(2);
    home.snapshot("an_invalid_event_gets_no_misleading_help", &ran);
    let ran = home.feed(&["emit", "--ndjson"], "{\"a\":1}").exits(2);
    home.snapshot("an_invalid_event_gets_no_misleading_help-2", &ran);
}

#[test]
fn stdin_is_read_up_to_the_event_limit() {
    let home = Home::new();
    let ran = home.shell("head -c 3000000 /dev/zero | tr '\\0' x | $EVBUS emit t --text -").exits(2);
    ran.says("stdin holds more than this bus's limit of 1048576 bytes", "--max-event");
    let ran = home.shell("yes x | tr -d '\\n' | timeout 20 $EVBUS emit t --text -").exits(2);
    ran.says("stdin holds more", "");
}
