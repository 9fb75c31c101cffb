use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use super::*;

#[test]
fn a_full_queue_drops_lines_counts_them_and_close_keeps_its_limit() {
    // A pipe that nobody reads.
    let (reader, pipe) = io::pipe().unwrap();
    let unwritten = Arc::new(AtomicU64::new(0));
    let writer = writer::CountingWriter::on(std::fs::File::from(OwnedFd::from(pipe)), Arc::clone(&unwritten));
    let builder = NonBlockingBuilder::default().buffered_lines_limit(16).lossy(true);
    let (mut queue, guard) = builder.finish(writer);
    let line = [b'x'; 8192];
    for _ in 0..200 {
        queue.write_all(&line).unwrap();
    }
    let (_, level) = reload::Layer::new(filter::parse("info").unwrap());
    let logs = Logs { queue_full: queue.error_counter(), unwritten, guard, level };
    assert!(logs.dropped() >= 200 - 16 - 10, "dropped {}", logs.dropped());
    let start = std::time::Instant::now();
    logs.close(Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
    drop(reader);
}

#[test]
fn a_closed_output_is_counted_and_never_fatal() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let unwritten = Arc::new(AtomicU64::new(0));
    let mut writer = writer::CountingWriter::on(std::fs::File::from(OwnedFd::from(pipe)), Arc::clone(&unwritten));
    writer.write_all(b"one\n").unwrap();
    writer.write_all(b"two\n").unwrap();
    assert_eq!(unwritten.load(Ordering::Relaxed), 2);
}

#[test]
fn a_full_disk_is_counted_and_never_fatal() {
    let unwritten = Arc::new(AtomicU64::new(0));
    #[expect(clippy::disallowed_methods, reason = "/dev/full is a device of this machine")]
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut writer = writer::CountingWriter::on(full, Arc::clone(&unwritten));
    writer.write_all(b"one\n").unwrap();
    assert_eq!(unwritten.load(Ordering::Relaxed), 1);
}

/// What the log writes while `events` run, under a filter that `events` may change.
fn written(format: LogFormat, filter: &str, events: impl FnOnce(&Logs)) -> String {
    let (mut reader, pipe) = io::pipe().unwrap();
    let unwritten = Arc::new(AtomicU64::new(0));
    let writer = writer::CountingWriter::on(std::fs::File::from(OwnedFd::from(pipe)), Arc::clone(&unwritten));
    let (queue, guard) = NonBlockingBuilder::default().finish(writer);
    let (filter, level) = reload::Layer::new(filter::parse(filter).unwrap());
    let logs = Logs { queue_full: queue.error_counter(), unwritten, guard, level };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines(format, false, queue));
    tracing::subscriber::with_default(subscriber, || events(&logs));
    assert_eq!(logs.dropped(), 0);
    logs.close(Duration::from_secs(5));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn text_lines_have_a_utc_time_and_no_colours() {
    let text = written(LogFormat::Text, "info", |_| tracing::warn!(state = "hung", "mount /mnt/a"));
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && humantime::parse_rfc3339(time).is_ok(), "{text}");
    assert!(rest.contains("WARN") && rest.ends_with("mount /mnt/a state=\"hung\"\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn json_lines_are_flat_objects() {
    let text = written(LogFormat::Json, "info", |_| {
        tracing::warn!(state = "hung", "one");
        tracing::info!("two");
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["level"], &lines[0]["message"], &lines[0]["state"]),
        (&"WARN".into(), &"one".into(), &"hung".into())
    );
    assert!(humantime::parse_rfc3339(lines[0]["timestamp"].as_str().unwrap()).is_ok());
}

#[test]
fn the_level_changes_while_running_and_a_bad_one_changes_nothing() {
    let text = written(LogFormat::Text, "info", |logs| {
        tracing::debug!("unseen");
        logs.set_level("debug").unwrap();
        tracing::debug!("seen");
        logs.set_level("debgu").unwrap_err();
        tracing::debug!("seen too");
        logs.set_level("off").unwrap();
        tracing::error!("silenced");
    });
    let messages: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("tests: ").map(|(_, message)| message)).collect();
    assert_eq!(messages, ["seen", "seen too"]);
}

#[test]
fn a_panic_is_a_log_line_with_its_place() {
    let text = written(LogFormat::Text, "info", |_| {
        let before = std::panic::take_hook();
        panics::log_them();
        let result = std::panic::catch_unwind(|| panic!("no {}", "luck"));
        std::panic::set_hook(before);
        result.unwrap_err();
    });
    assert!(
        text.contains("ERROR") && text.contains("panic: no luck") && text.contains("src/logging/tests.rs:"),
        "{text}"
    );
}
