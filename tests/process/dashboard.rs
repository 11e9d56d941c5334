//! The dashboard in a real browser: what it shows, how soon, what it lets people do, and that its script makes no
//! mistakes. `RINGWAY_SCREENSHOTS=FOLDER` keeps pictures of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use nix::unistd::Uid;
use serde_json::{Map, Value, json};
use url::{ParseError, Url};

use crate::api::certificate;
use crate::harness::backend::Backend;
use crate::harness::http::{self, request};
use crate::harness::{Folder, Launch, Ringway, SOON, skip, stream};

const TOKEN: &str = "a-token-of-the-tests-0123456789";
const LONG: &str =
    "a-backend-with-a-name-that-is-as-long-as-names-of-database-hosts-can-become.db.example";

/// A command of chromedriver that fantoccini has no name for.
#[derive(Debug)]
struct Special {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Special {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// A browser that talks to loopback only.
struct Browser {
    driver: Child,
    client: Client,
    _folder: Folder,
}

impl Browser {
    /// A driver, and its port unless it has ended; none where there is none.
    fn driver(folder: &Folder) -> Option<(Child, Option<String>)> {
        let driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=WARNING"])
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut driver = driver.ok()?;
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let port = line.split_once("successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        Some((driver, port))
    }

    /// None where there is none.
    async fn start() -> Option<Browser> {
        let folder = Folder::new();
        // It ends at once when another one that starts at the same time was given the same port.
        let begun = Instant::now();
        let (driver, port) = loop {
            match Browser::driver(&folder) {
                None => {
                    skip("chromedriver is not installed");
                    return None;
                }
                Some((driver, Some(port))) => break (driver, port),
                Some((mut driver, None)) => drop(driver.wait().unwrap()),
            }
            assert!(begun.elapsed() < SOON, "chromedriver says its port");
        };
        let mut arguments = vec![
            "--headless=new",
            "--window-size=1280,900",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-domain-reliability",
            "--disable-extensions",
            "--disable-sync",
            "--disable-features=OptimizationHints,MediaRouter,Translate",
            "--metrics-recording-only",
            "--no-first-run",
            "--no-pings",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--no-proxy-server",
        ];
        if Uid::effective().is_root() {
            arguments.push("--no-sandbox");
        }
        let mut wanted = Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), json!({"args": arguments}));
        // Certificates are the tests' own.
        wanted.insert("acceptInsecureCerts".to_owned(), json!(true));
        wanted.insert("goog:loggingPrefs".to_owned(), json!({"browser": "ALL"}));
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("the browser starts");
        Some(Browser {
            driver,
            client,
            _folder: folder,
        })
    }

    async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until a script gives true; how long that took.
    #[track_caller]
    fn shows<'a>(&'a self, what: &'a str, script: &'a str) -> impl Future<Output = Duration> + 'a {
        let script = format!("return Boolean({script})");
        async move {
            let begun = Instant::now();
            while self.run(&script).await != json!(true) {
                if begun.elapsed() > SOON {
                    let text = self.run("return document.body.innerText").await;
                    panic!(
                        "not within {SOON:?}: {what}; the page says\n{}",
                        text.as_str().unwrap()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            begun.elapsed()
        }
    }

    async fn click(&self, selector: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap();
        element.click().await.unwrap();
    }

    async fn write(&self, selector: &str, text: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap();
        element.clear().await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    /// What the browser complained about since it was last asked, but for answers that are no success.
    async fn complaints(&self) -> Vec<String> {
        let body = json!({"type": "browser"});
        let special = Special {
            path: "se/log",
            body,
        };
        let entries = self.client.issue_cmd(special).await.unwrap();
        let entries = entries.as_array().unwrap().iter();
        let other = entries.filter(|entry| entry["source"] != "network");
        other.map(|entry| entry.to_string()).collect()
    }

    async fn emulate(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        let path = "goog/cdp/execute";
        self.client.issue_cmd(Special { path, body }).await.unwrap();
    }

    async fn of_width(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.emulate("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    async fn of_scheme(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.emulate("Emulation.setEmulatedMedia", features).await;
    }

    async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("RINGWAY_SCREENSHOTS") {
            let picture = self.client.screenshot().await.unwrap();
            let folder = std::path::PathBuf::from(folder);
            fs::write(folder.join(format!("{name}.png")), picture).unwrap();
        }
    }

    async fn end(mut self) {
        self.client.clone().close().await.unwrap();
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has ended already unless the test has failed; with it goes the browser.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// With the dashboard over TCP; more keys of `admin.http`.
fn start(folder: &Folder, more: &str, backends: [&Backend; 3]) -> Ringway {
    let [first, second, third] = backends;
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    Launch::config(format!(
        "global: {{workers: 1}}\n\
         admin: {{http: {{address: \"127.0.0.1:0\", token_file: {}{more}}}}}\n\
         listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}, {{name: other, bind: \"127.0.0.1:0\", pool: q}}]\n\
         defaults: {{pool: {{probe: {{type: tcp, interval: 100ms, fast_interval: 50ms, fall: 2, rise: 1}}}}}}\n\
         pools:\n  p: {{backends: [{{name: one, address: \"{}\"}}, {{name: two, address: \"{}\"}}]}}\n\
         \x20 q: {{backends: [{{name: {LONG}, address: \"{}\"}}]}}\n",
        token.display(),
        first.address(),
        second.address(),
        third.address(),
    ))
    .start()
}

const ROW_OF_TWO: &str = "document.querySelector('tr[data-backend=\"p/two\"]')";
const DRAIN_ONE: &str = "tr[data-backend='p/one'] td.keys button:nth-child(2)";

#[test]
fn the_dashboard_in_a_browser() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(in_a_browser());
}

#[test]
fn the_dashboard_in_a_browser_over_tls() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(in_a_browser_over_tls());
}

async fn in_a_browser_over_tls() {
    let (first, second, third) = (Backend::echo(), Backend::echo(), Backend::echo());
    let folder = Folder::new();
    let Some((cert, key)) = certificate(folder.path()) else {
        return;
    };
    let tls = format!(
        ", tls: {{cert: {}, key: {}}}",
        cert.display(),
        key.display()
    );
    let ringway = start(&folder, &tls, [&first, &second, &third]);
    let address = ringway.address_in_line("API served");
    let Some(browser) = Browser::start().await else {
        return;
    };
    let page = format!("https://{address}/");
    browser.client.goto(&page).await.unwrap();
    assert_eq!(browser.run("return isSecureContext").await, true);
    let all = "document.querySelectorAll('tr.backend td.good').length === 3";
    browser.shows("all backends are up", all).await;
    shows_a_backend_going_down(&browser, &ringway, second).await;
    lets_nobody_change_anything_without_the_token(&browser, &ringway).await;
    drains_with_the_token(&browser, &ringway).await;
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
    browser.end().await;
    ringway.stop();
}

async fn in_a_browser() {
    let (first, second, third) = (Backend::echo(), Backend::echo(), Backend::echo());
    let folder = Folder::new();
    let ringway = start(&folder, "", [&first, &second, &third]);
    let address = ringway.address_in_line("API served");
    let Some(browser) = Browser::start().await else {
        return;
    };
    browser
        .client
        .goto(&format!("http://{address}/"))
        .await
        .unwrap();
    let both = "document.querySelectorAll('tr.backend td.good').length === 3";
    browser.shows("all backends are up", both).await;
    let mut client = ringway.connect();
    stream::exchange(&mut client, b"hello");
    let counted = "[...document.querySelectorAll('tr[data-backend^=\"p/\"] td[data-label=sessions]')]\
                   .map(cell => cell.textContent).sort().join() === '0,1'";
    browser.shows("a session is counted", counted).await;

    shows_a_backend_going_down(&browser, &ringway, second).await;
    lets_nobody_change_anything_without_the_token(&browser, &ringway).await;
    drains_with_the_token(&browser, &ringway).await;
    fits(&browser).await;

    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
    drop(client);
    ringway.stop();
    let old = "document.querySelector('.banner').textContent.startsWith('No answer for') && \
               document.body.classList.contains('stale')";
    browser.shows("that figures are old", old).await;
    browser.end().await;
}

async fn shows_a_backend_going_down(browser: &Browser, ringway: &Ringway, backend: Backend) {
    drop(backend);
    ringway.wait_line("backend down");
    let down = format!("{ROW_OF_TWO}.textContent.includes('down')");
    let took = browser.shows("a backend is down", &down).await;
    assert!(took < Duration::from_secs(2), "shown after {took:?}");
    println!("shown {took:?} after the log said it");
    let why = format!("{ROW_OF_TWO}.nextSibling.textContent.includes('connection refused')");
    browser.shows("the reason", &why).await;
    let event = "document.querySelector('#events li').textContent.includes('p/two down')";
    browser.shows("the event", event).await;
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
}

async fn lets_nobody_change_anything_without_the_token(browser: &Browser, ringway: &Ringway) {
    let buttons =
        "[...document.querySelectorAll('td.keys button')].filter(one => one.checkVisibility())";
    let count = browser.run(&format!("return {buttons}.length")).await;
    assert_eq!(count, 0, "there is nothing to press");
    let tried = "const done = arguments[arguments.length - 1]; \
                 fetch('v1/backends/p/one', {method: 'POST', body: JSON.stringify({state: 'drain'}), \
                 headers: {'content-type': 'application/json'}}).then(answer => done(answer.status))";
    let code = browser
        .client
        .execute_async(tried, Vec::new())
        .await
        .unwrap();
    assert_eq!(code, 401);
    browser.click("#unlock").await;
    browser.write("#token", "not-the-token-of-the-tests").await;
    browser.click("#ask-yes").await;
    let wrong = "document.getElementById('ask-wrong').textContent === 'This is not the token.'";
    browser.shows("that it is wrong", wrong).await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    assert_eq!(ringway.get("/v1/backends/p/one").json()["state"], "ready");
}

async fn drains_with_the_token(browser: &Browser, ringway: &Ringway) {
    browser.write("#token", TOKEN).await;
    browser.click("#ask-yes").await;
    browser
        .shows("the dialog is gone", "!document.getElementById('ask').open")
        .await;
    let kept = "return [sessionStorage.length, localStorage.length, document.cookie]";
    assert_eq!(browser.run(kept).await, json!([1, 0, ""]));
    let drains = format!("document.querySelector(\"{DRAIN_ONE}\").checkVisibility()");
    browser.shows("there is a button", &drains).await;
    browser.click(DRAIN_ONE).await;
    let warned = "document.getElementById('ask-text').textContent.includes('last usable backend')";
    browser.shows("it asks first, and warns", warned).await;
    assert_eq!(ringway.get("/v1/backends/p/one").json()["state"], "ready");
    browser.picture("confirm").await;
    browser.click("#ask-yes").await;
    let drains =
        "document.querySelector('tr[data-backend=\"p/one\"]').textContent.includes('drain')";
    browser.shows("it drains", drains).await;
    assert_eq!(ringway.get("/v1/backends/p/one").json()["state"], "drain");
    let banner = "[...document.querySelectorAll('.banner')]\
                  .some(one => one.textContent.startsWith('Pool p has no usable'))";
    browser.shows("the banner", banner).await;
}

/// No width makes people scroll to the side, and no scheme is left out.
async fn fits(browser: &Browser) {
    let over = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    let mut grounds = Vec::new();
    for (width, height, scheme) in [
        (1280, 900, "light"),
        (1280, 900, "dark"),
        (800, 900, "light"),
        (390, 844, "light"),
        (320, 640, "dark"),
    ] {
        browser.of_width(width, height).await;
        browser.of_scheme(scheme).await;
        let ground = "return getComputedStyle(document.body).backgroundColor";
        grounds.push((scheme, browser.run(ground).await));
        assert_eq!(browser.run(over).await, 0, "{width} wide");
        browser.picture(&format!("{width}-{scheme}")).await;
    }
    for (scheme, ground) in &grounds {
        let is_as_light = *ground == grounds[0].1;
        assert_eq!(is_as_light, *scheme == "light", "{scheme}: {ground}");
    }
}

#[test]
fn the_dashboard_is_served_with_a_strict_policy_and_only_looks_where_nothing_may_be_changed() {
    let backend = Backend::echo();
    let ringway = Launch::config(format!(
        "admin: {{http: \"127.0.0.1:0\"}}\nlisteners: [{{bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
        backend.address()
    ))
    .start();
    let address = ringway.address_in_line("API served");
    let page = http::exchange(http::tcp(address), &request("GET", "/", &[], ""));
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "script-src 'sha256-",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.body.contains("data-changes=\"none\""));
    assert!(
        ringway.get("/").body.contains("data-changes=\"all\""),
        "at the socket"
    );
    let foreign = [
        ("origin", "https://example.com"),
        ("content-type", "application/json"),
    ];
    let change = request(
        "POST",
        "/v1/failover",
        &foreign,
        "{\"action\":\"failover\"}",
    );
    let answer = http::exchange(http::unix(&ringway.admin_socket()), &change);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("another site"), "{answer:?}");
    ringway.stop();
}
