//! What the dashboard shows of a device that sends wrong things, in a real browser.

use std::time::Duration;

use flutecast_testkit::{Dataplane, LocalStack, Publisher, wait_until};
use serde_json::{Value, json};

use crate::chromium::{Chromium, value};
use crate::factory::{SOON, TENANT, now_ms};

/// The time after which a fault on a watched channel ends once it is healed.
const LINGER: Duration = Duration::from_secs(10);
/// 2036-01-01 in milliseconds since 1970.
const FAR_AHEAD: u64 = 2_082_758_400_000;

const PLANT: &str = "
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: machine}
spec:
  timestamp: {pointer: /ts, unit: Milliseconds}
  fields:
  - {name: speed, pointer: /speed, type: Number, decimals: 0}
  - {name: state, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: climate}
spec:
  timestamp: {pointer: /ts, unit: Milliseconds}
  record: {merge: true, expireFields: 10m}
  fields:
  - {name: temp, pointer: /temp, type: Number}
  - {name: hum, pointer: /hum, type: Number}
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: alarm}
spec:
  timestamp: {pointer: /ts, unit: Milliseconds}
  delivery: {policy: Every}
  fields:
  - {name: code, pointer: /code, type: Number, decimals: 0}
  - {name: severity, pointer: /severity, type: String}
  - {name: text, pointer: /text, type: String}
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: a}
spec:
  tenant: acme
  deviceCode: A-1
  channels:
  - {name: telemetry, format: machine}
  - {name: climate, format: climate}
  - {name: alarms, format: alarm}
";

/// A device, and the dashboard that shows it.
struct Screen {
    stack: LocalStack,
    publisher: Publisher,
    browser: Chromium,
    _dataplane: Dataplane,
}

impl Screen {
    async fn open() -> anyhow::Result<Self> {
        let stack = LocalStack::with("acme", &[("tenant.yaml", TENANT), ("plant.yaml", PLANT)]).await?;
        let dataplane = stack.dataplane().await?;
        let publisher = stack.publisher().await?;
        let page = format!("{}/?tenant=acme", dataplane.url);
        let browser = Chromium::open(&page, 1200, 900).await?;
        let screen = Self { stack, publisher, browser, _dataplane: dataplane };
        let live = "return document.body.dataset.connection";
        screen.shows("the connection", live, &json!("live"), SOON).await?;
        Ok(screen)
    }

    async fn send(&self, channel: &str, message: &Value) -> anyhow::Result<()> {
        self.send_text(channel, &message.to_string()).await
    }

    async fn send_text(&self, channel: &str, payload: &str) -> anyhow::Result<()> {
        let subject = self.stack.subject("A-1", channel)?;
        self.publisher.publish(&subject, payload.to_owned()).await.map(drop)
    }

    /// Waits until a script returns `expected`.
    async fn shows(
        &self,
        what: &str,
        script: &str,
        expected: &Value,
        within: Duration,
    ) -> anyhow::Result<()> {
        wait_until(what, within, async || match self.browser.script(script).await {
            Ok(shown) if shown == *expected => Ok(()),
            Ok(shown) => Err(format!("{shown} instead of {expected}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    async fn shows_value(&self, channel: &str, field: &str, expected: &str) -> anyhow::Result<()> {
        let script = text_of(&value("A-1", channel, field));
        self.shows(&format!("{field} {expected}"), &script, &json!(expected), SOON).await
    }

    /// Waits until the card shows a channel's problem: its reason, and a sentence that contains `remedy`.
    async fn shows_problem(&self, channel: &str, reason: &str, remedy: &str) -> anyhow::Result<()> {
        let script = format!(
            "const node = {}; return [node.checkVisibility(), node.dataset.reason,
               node.querySelector('.message').textContent.includes({})]",
            problem_of(channel),
            json!(remedy)
        );
        let what = format!("the problem {reason} on the card");
        self.shows(&what, &script, &json!([true, reason, true]), SOON).await
    }

    /// Sends right messages until the channel's problem is no longer on the card.
    async fn heals(&self, channel: &str) -> anyhow::Result<()> {
        let script = format!("return {}.checkVisibility()", problem_of(channel));
        wait_until("the problem to end", LINGER + SOON, async || {
            let sent = self.send(channel, &json!({"ts": now_ms(), "speed": 9, "st": 1})).await;
            sent.map_err(|error| format!("{error:#}"))?;
            match self.browser.script(&script).await {
                Ok(Value::Bool(false)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

fn text_of(selector: &str) -> String {
    format!("return document.querySelector({})?.textContent ?? null", json!(selector))
}

fn problem_of(channel: &str) -> String {
    format!(r#"document.querySelector('[data-device="A-1"] [data-problem="{channel}"]')"#)
}

/// Returns a script that returns the rows of the alarm list that contain `text`.
fn alarm_row(text: &str) -> String {
    format!(
        "return [...document.querySelectorAll('#alarm-list li')].map((row) => row.textContent)
           .filter((row) => row.includes({})).length",
        json!(text)
    )
}

#[tokio::test]
async fn the_page_follows_the_stream_and_says_why_something_is_not_shown() -> anyhow::Result<()> {
    let screen = Screen::open().await?;

    // With equal times, the message that was stored later counts.
    let ts = now_ms();
    screen.send("telemetry", &json!({"ts": ts, "speed": 1, "st": 1})).await?;
    screen.shows_value("telemetry", "state", "running").await?;
    screen.send("telemetry", &json!({"ts": ts, "speed": 1, "st": 0})).await?;
    screen.shows_value("telemetry", "state", "stopped").await?;

    // A clock that is ahead stops nothing, and is named.
    screen.send("telemetry", &json!({"ts": FAR_AHEAD, "speed": 5, "st": 1})).await?;
    screen.shows_value("telemetry", "speed", "5").await?;
    screen.shows_problem("telemetry", "ClockAhead", "clock").await?;
    screen.send("telemetry", &json!({"ts": now_ms(), "speed": 6, "st": 1})).await?;
    screen.shows_value("telemetry", "speed", "6").await?;
    screen.heals("telemetry").await?;

    // A state that has no word is not the state before.
    screen.shows_value("telemetry", "state", "running").await?;
    screen.send("telemetry", &json!({"ts": now_ms(), "speed": 7, "st": 7})).await?;
    screen.shows_value("telemetry", "state", "–").await?;
    let raw = r#"const raw = document.querySelector('[data-device="A-1"] [data-raw="state"]');
        return [raw.checkVisibility(), raw.textContent]"#;
    screen.shows("the raw state", raw, &json!([true, "7"]), SOON).await?;
    screen.shows_problem("telemetry", "BadField", "values").await?;
    // A page that is opened now shows the same.
    screen.browser.page.refresh().await?;
    screen.shows_value("telemetry", "state", "–").await?;
    screen.shows("the raw state", raw, &json!([true, "7"]), SOON).await?;
    screen.shows_problem("telemetry", "BadField", "values").await?;
    screen.heals("telemetry").await?;
    screen.shows_value("telemetry", "state", "running").await?;
    screen
        .shows(
            "no raw state",
            "return document.querySelectorAll('.raw:not([hidden])').length",
            &json!(0),
            SOON,
        )
        .await?;

    // A message that was cut in half changes no value, and is named.
    screen.send_text("telemetry", r#"{"ts":1795341560123,"spe"#).await?;
    screen.shows_problem("telemetry", "Malformed", "cut it off").await?;
    screen.shows_value("telemetry", "speed", "9").await?;

    // Alarms come in the order of the stream, also late ones.
    for (code, age) in [(801, 0), (802, 1_000), (803, 60_000)] {
        let text = format!("number {code}");
        let alarm = json!({"ts": now_ms() - age, "code": code, "severity": "critical", "text": text});
        screen.send("alarms", &alarm).await?;
        screen.shows(&text, &alarm_row(&text), &json!(1), SOON).await?;
    }
    screen.shows("one late alarm", &alarm_row("late"), &json!(1), SOON).await?;

    // Of a record, the older field shows its age.
    screen.send("climate", &json!({"ts": now_ms() - 5_000, "temp": 20})).await?;
    screen.send("climate", &json!({"ts": now_ms(), "hum": 50})).await?;
    screen.shows_value("climate", "hum", "50").await?;
    screen.shows_value("climate", "temp", "20").await?;
    let age = r#"const age = (field) => document.querySelector('[data-age="' + field + '"]').textContent;
        return [/^\d+ s$/.test(age('temp')), age('hum')]"#;
    screen.shows("the older field's age", age, &json!([true, ""]), SOON).await?;

    // The healing of the first fault was shown while the page was open; the last ends too.
    screen.heals("telemetry").await?;
    screen.browser.close().await
}

#[tokio::test]
async fn the_page_goes_on_when_the_stream_was_made_anew() -> anyhow::Result<()> {
    let screen = Screen::open().await?;
    // The sequences of the new stream are far below those that the page knows.
    for speed in 0..100 {
        screen.send("telemetry", &json!({"ts": now_ms(), "speed": speed, "st": 1})).await?;
    }
    screen.shows_value("telemetry", "speed", "99").await?;
    screen.browser.script("window.mark = 'not reloaded'").await?;
    let jetstream = screen.publisher.jetstream();
    let config = jetstream.get_stream("IOT_acme").await?.cached_info().config.clone();
    jetstream.delete_stream("IOT_acme").await?;
    jetstream.create_stream(config).await?;
    let script = text_of(&value("A-1", "telemetry", "speed"));
    wait_until("a value of the new stream", SOON * 3, async || {
        let sent = screen.send("telemetry", &json!({"ts": now_ms(), "speed": 500, "st": 1})).await;
        sent.map_err(|error| format!("{error:#}"))?;
        match screen.browser.script(&script).await {
            Ok(Value::String(shown)) if shown == "500" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert_eq!(screen.browser.script("return window.mark ?? null").await?, "not reloaded");
    screen.browser.close().await
}
