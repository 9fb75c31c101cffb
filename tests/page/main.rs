//! The status page in a real browser: `make page-test`. Without the word `run` it does nothing, so that `cargo test` needs no
//! browser.
//!
//! Five situations are served by the agent's own listener and looked at in headless Chromium: light, dark and on a phone, with
//! and without scripts. Each must be drawn whole, load in time, and satisfy axe (an accessibility checker). The pictures are
//! left in `target/page`, for eyes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod browser;
mod scenes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use browser::{Browser, Look};
use mountwarden::http::{HttpState, serve_ui};
use mountwarden::snapshot::Snapshot;

/// A page of 1,000 mounts is there within this time after it was asked for.
const LOAD_MILLIS: f64 = 200.0;

/// The fastest of so many counts: the others measure what else the machine does.
const LOADS: usize = 5;

/// Longer than anything here takes on a loaded machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOKS: [Look; 4] = [
    Look { name: "light", width: 1280, height: 900, dark: false },
    Look { name: "dark", width: 1280, height: 900, dark: true },
    Look { name: "phone", width: 390, height: 844, dark: false },
    Look { name: "phone-dark", width: 390, height: 844, dark: true },
];

/// The first words of the table that are broken although they would fit into a line of it.
const BROKEN_WORDS: &str = "(() => {
    const found = [], range = document.createRange();
    for (const cell of document.querySelectorAll('th, td')) {
        const style = getComputedStyle(cell);
        // Beside other columns a path or a source has the room of its cell; everything else is short.
        const shared = innerWidth > 640 && cell.matches('td:nth-child(-n+2)');
        const whole = shared || style.display === 'block' ? cell.clientWidth : cell.closest('table').clientWidth;
        const room = whole - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
            range.setStart(texts.currentNode, word.index);
            range.setEnd(texts.currentNode, word.index + word[0].length);
            const parts = [...range.getClientRects()];
            const width = parts.reduce((sum, part) => sum + part.width, 0);
            if (new Set(parts.map(part => Math.round(part.top))).size > 1 && width <= room) found.push(word[0]);
        }
    }
    return found.slice(0, 5).join(' ');
})()";

fn main() {
    if std::env::args().nth(1).as_deref() != Some("run") {
        println!("the page is looked at by `make page-test`");
        return;
    }
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    std::fs::create_dir_all(&pictures).unwrap();
    let axe = std::env::var_os("AXE").expect("AXE is the path of axe.min.js: make page-test sets it");
    let axe = std::fs::read_to_string(PathBuf::from(axe)).expect("axe.min.js");
    let mut browser = Browser::start();
    for (name, snapshot) in scenes::all() {
        look_at(&mut browser, &pictures, name, snapshot, &axe);
    }
    without_scripts(&mut browser);
    with_keys(&mut browser);
    println!("pictures: {}", pictures.display());
}

/// Serves one snapshot until the process ends.
fn served(snapshot: Snapshot) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let state = HttpState::new().unwrap();
            state.publish(Arc::new(snapshot));
            let (_stop, shutdown) = tokio::sync::watch::channel(false);
            serve_ui(tokio::net::TcpListener::from_std(listener).unwrap(), state, shutdown).await;
        });
    });
    let url = format!("http://{address}/");
    let begin = Instant::now();
    while !answers(&address.to_string()) {
        assert!(begin.elapsed() < PATIENCE, "{url} is not served");
        std::thread::sleep(Duration::from_millis(5));
    }
    url
}

/// The first snapshot is rendered.
fn answers(address: &str) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let asked = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    let mut answer = String::new();
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn look_at(browser: &mut Browser, pictures: &Path, name: &str, snapshot: Snapshot, axe: &str) {
    let total = snapshot.mounts.len();
    let url = served(snapshot);
    for look in &LOOKS {
        let millis = (0..LOADS).map(|_| load(browser, &url, look)).fold(f64::MAX, f64::min);
        let overflow = browser.number("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert!(overflow <= 0.0, "{name}, {}: {overflow} pixels wider than the screen", look.name);
        std::fs::write(pictures.join(format!("{name}-{}.png", look.name)), browser.picture()).unwrap();
        assert_eq!(browser.text(BROKEN_WORDS), "", "{name}, {}: broken though there is room", look.name);
        let found = browser.axe(axe);
        let serious: Vec<_> =
            found.iter().filter(|found| found.impact == "serious" || found.impact == "critical").collect();
        assert!(serious.is_empty(), "{name}, {}: axe found {serious:#?}", look.name);
        let complaints = browser.complaints();
        assert!(complaints.is_empty(), "{name}, {}: the browser complains: {complaints:?}", look.name);
        assert_eq!(browser.text("String(window.pwned)"), "undefined", "{name}: a name of a mount was run as a script");
        println!(
            "{name}-{}: {total} mounts, loaded in {millis:.0} ms, {} minor findings of axe",
            look.name,
            found.len()
        );
        assert!(millis < LOAD_MILLIS, "{name}, {}: loaded in {millis:.0} ms", look.name);
    }
}

/// Milliseconds from asking for the page to its last part.
fn load(browser: &mut Browser, url: &str, look: &Look) -> f64 {
    browser.open(url, look);
    browser.number(
        "(() => { const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd - n.startTime })()",
    )
}

fn without_scripts(browser: &mut Browser) {
    let url = served(scenes::dead_server());
    browser.scripts(false);
    browser.open(&format!("{url}?state=dead&q=web-1"), &LOOKS[0]);
    browser.scripts(true);
    // The document is what the server sent: no script of the page ran.
    assert_eq!(browser.text("String(document.getElementById('keys').hidden)"), "true");
    let text = browser.text("document.body.innerText");
    for words in ["server_unreachable", "shop/web-1", "What to do", "Show all", "The last hour"] {
        assert!(text.contains(words), "without scripts {words:?} is missing: {text}");
    }
    println!("without scripts: all there, filtered by the server");
}

fn with_keys(browser: &mut Browser) {
    let url = served(scenes::crowd());
    browser.open(&url, &LOOKS[0]);
    browser.key("j", None);
    assert_eq!(browser.text("document.activeElement.id"), "incident-1");
    browser.key("j", None);
    assert_eq!(browser.text("document.activeElement.id"), "incident-2");
    browser.key("k", None);
    assert_eq!(browser.text("document.activeElement.id"), "incident-1");
    browser.key("/", None);
    assert_eq!(browser.text("document.activeElement.name"), "q");
    for letter in ["d", "a", "t", "a", "-", "7", "7"] {
        browser.key(letter, Some(letter));
    }
    let shown = "document.querySelector('#live .filtered') !== null && document.querySelectorAll('#live tbody tr, #live .mount').length";
    browser.eventually(&format!("const n = {shown}; return n > 0 && n < 20"));
    assert_eq!(browser.text("document.activeElement.name"), "q", "the focus stays where one types");
    assert!(browser.text("location.search").contains("q=data-77"), "the address leads back here");
    browser.key("Escape", None);
    browser.eventually("return document.querySelector('#live .filtered') === null && location.search === ''");
    println!("with keys: j, k, /, typing and Escape do what they say");
}
