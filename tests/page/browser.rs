//! Headless Chromium over its DevTools pipe: one JSON message after the other, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use base64::Engine;
use serde_json::{Value, json};

/// How a page is looked at.
pub(crate) struct Look {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
}

/// One thing that axe complains about.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) impact: String,
    #[expect(dead_code, reason = "printed")]
    pub(crate) rule: String,
    #[expect(dead_code, reason = "printed")]
    pub(crate) node: String,
}

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    next: u64,
    /// Messages that nobody asked for.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        // The pipe is descriptors 3 and 4 of the browser; a shell puts ours there.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
            --disable-background-networking --disable-component-update --disable-dev-shm-usage \
            --user-data-dir=\"$1\" --remote-debugging-pipe 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(profile.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Browser { child, to, from, session: None, next: 0, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == json!(id) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        assert!(bytes.pop().is_some(), "chromium ended: is it installed? tests/packages.sh page");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str, look: &Look) {
        let size =
            json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media);
        self.events.clear();
        self.call("Page.navigate", json!({ "url": url }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read();
            self.events.push(event);
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression:.200}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    pub(crate) fn number(&mut self, expression: &str) -> f64 {
        self.evaluate(expression).as_f64().unwrap_or_else(|| panic!("{expression} is no number"))
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.evaluate(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Waits until the body of a function says true.
    pub(crate) fn eventually(&mut self, body: &str) {
        let begin = Instant::now();
        while self.evaluate(&format!("(() => {{ {body} }})()")) != json!(true) {
            assert!(begin.elapsed() < super::PATIENCE, "it never came true: {body}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Whether scripts of pages run from now on.
    pub(crate) fn scripts(&mut self, run: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !run }));
    }

    pub(crate) fn key(&mut self, key: &str, text: Option<&str>) {
        let mut down = json!({ "type": "keyDown", "key": key });
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key }));
    }

    /// The page down to its end, at most 3,000 pixels of it.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let height = size["height"].as_f64().unwrap().min(3000.0);
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let parameters = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", parameters);
        base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// What axe finds on the page.
    pub(crate) fn axe(&mut self, axe: &str) -> Vec<Found> {
        self.evaluate(&format!("{axe}; undefined"));
        let run = "axe.run().then(r => r.violations.flatMap(v => v.nodes.map(n => [v.impact, v.id + ': ' + v.help, n.html + ' ' + n.failureSummary])))";
        let found = self.evaluate(run);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = found.as_array().expect("a list").iter();
        found.map(|one| Found { impact: text(&one[0]), rule: text(&one[1]), node: text(&one[2]) }).collect()
    }

    /// Errors of scripts, refused content, dialogs: none of them belongs on this page.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let bad = |event: &&Value| {
            let level = event["params"]["entry"]["level"].as_str();
            matches!(event["method"].as_str(), Some("Runtime.exceptionThrown" | "Page.javascriptDialogOpening"))
                || (event["method"] == "Log.entryAdded" && matches!(level, Some("error" | "warning")))
        };
        // Every browser asks for it, whatever a page says.
        let icon =
            |event: &Value| event["params"]["entry"]["url"].as_str().is_some_and(|url| url.ends_with("/favicon.ico"));
        self.events.iter().filter(bad).filter(|event| !icon(event)).map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
