//! The faults that this rule came from. Each row says what was sent and what all places show: a screen that
//! was there from the start on one pod, screens that come after on either pod, and the JSON API of both.
//!
//! | row | messages | all show |
//! | --- | --- | --- |
//! | S1 | `when: values.v >= 0`; `{"v":1824}`, then `{"v":-1}` | 1824 |
//! | P1 | unit Seconds, `Latest`; `{"ts":S,"st":1}`, `{"ts":S,"st":0}` | stopped |
//! | P2 | `Every`; codes 1 (T), 2 (T − 1 s), 3 (now + 6 s, maxAhead 5 s) | 1 and 2; 3 is `TooFarAhead` |
//! | P3 | one Enum field; `{"st":1}`, then `{"st":7}` | `null`; `bad` names 7 |
//! | P6 | `Latest`, no maxAhead; a time one hour ahead, then right ones | the newest; `ClockAhead` |
//! | P7 | `{"temp":20}`, then `{"hum":50}`, with `record` | both |
//! | J1 | retention of 10 s; `{"on":1}`, then nothing until the stream has dropped it | on |

use futures_util::future::{FutureExt, LocalBoxFuture, join_all};
use serde_json::json;

use super::plant::{BRIEF, CHANNEL, Fixture, Plant, Row, shows_the_same, wait_until_dropped};
use super::screen::{Screen, Shown};
use crate::factory::now_ms;

const RUNNING: &str = "fields: [{name: st, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}]";

/// The test of a row. Returns what all places show in the end.
pub(super) type RowTest =
    Box<dyn for<'a> FnOnce(&'a Plant, Row<'a>) -> LocalBoxFuture<'a, anyhow::Result<Shown>>>;

/// Runs rows at the same time, each on its own device, and then compares a pod that has just started with
/// what they showed. Fails with all rows that fail.
pub(super) async fn run(rows: Vec<(Fixture, RowTest)>) -> anyhow::Result<()> {
    let (fixtures, tests): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let plant = Plant::start(&fixtures).await?;
    let each = fixtures.iter().zip(tests).map(async |(fixture, test)| {
        let row = Row::begin(&plant, fixture).await?;
        test(&plant, row).await
    });
    let shown = join_all(each).await;
    let restarted = plant.stack.dataplane().await?;
    let mut failed = Vec::new();
    for (fixture, shown) in fixtures.iter().zip(shown) {
        let end = match shown {
            Ok(shown) => shows_the_same(&restarted, fixture, &shown).await,
            Err(error) => Err(error),
        };
        failed.extend(end.err().map(|error| format!("{}: {error:#}", fixture.device)));
    }
    let logs = || format!("pod one:\n{}\npod two:\n{}", plant.one.process.tail(), plant.two.process.tail());
    anyhow::ensure!(failed.is_empty(), "{} rows:\n{}\n{}", failed.len(), failed.join("\n"), logs());
    Ok(())
}

async fn s1(mut row: Row<'_>) -> anyhow::Result<Shown> {
    let [shown, _] = row.send([r#"{"v":1824}"#, r#"{"v":-1}"#]).await?;
    // What `when` is not true for is no fault: nothing is said of it.
    row.all_show(&json!({"seq": shown, "values": {"v": 1824}})).await
}

async fn p1(mut row: Row<'_>) -> anyhow::Result<Shown> {
    let second = now_ms() / 1_000;
    let (on, off) = (format!(r#"{{"ts":{second},"st":1}}"#), format!(r#"{{"ts":{second},"st":0}}"#));
    let [_, last] = row.send([on, off]).await?;
    row.all_show(&json!({"seq": last, "values": {"st": "stopped"}})).await
}

async fn p2(plant: &Plant, mut row: Row<'_>) -> anyhow::Result<Shown> {
    let alarm = |ts: u64, code: u32| format!(r#"{{"ts":{ts},"code":{code}}}"#);
    let before = row.screen.last_id();
    let now = now_ms();
    let [.., second] = row.send([alarm(now, 1), alarm(now - 1_000, 2)]).await?;
    row.send([alarm(now_ms() + 6_000, 3)]).await?;
    let expected = json!({"seq": second, "values": {"code": 2}, "reason": "TooFarAhead"});
    let shown = row.all_show(&expected).await?;
    let codes = |screen: &Screen| -> Vec<_> {
        screen.events(CHANNEL).iter().map(|event| event["values"]["code"].clone()).collect()
    };
    anyhow::ensure!(codes(&row.screen) == [1, 2], "{:?}", codes(&row.screen));
    // A screen that was away gets the same two, from either pod; and no gap, as nothing was lost.
    for pod in [&plant.one, &plant.two] {
        let fixture = row.fixture;
        let resumed = Screen::resume(pod, fixture.tenant, &fixture.device, before.as_deref()).await?;
        anyhow::ensure!(codes(&resumed) == [1, 2], "resumed: {:?}", codes(&resumed));
        anyhow::ensure!(!resumed.others.iter().any(|name| name == "gap"), "{:?}", resumed.others);
    }
    Ok(shown)
}

async fn p3(mut row: Row<'_>) -> anyhow::Result<Shown> {
    let [_, last] = row.send([r#"{"st":1}"#, r#"{"st":7}"#]).await?;
    let expected = json!({
        "seq": last, "values": {"st": null}, "bad": {"st": "7"}, "reason": "BadField",
    });
    row.all_show(&expected).await
}

async fn p6(mut row: Row<'_>) -> anyhow::Result<Shown> {
    let value = |ts: u64, v: u32| format!(r#"{{"ts":{ts},"v":{v}}}"#);
    let [ahead] = row.send([value(now_ms() + 3_600_000, 1)]).await?;
    let expected = json!({"seq": ahead, "values": {"v": 1}, "reason": "ClockAhead"});
    let Shown(shown) = row.all_show(&expected).await?;
    // Its time is that of its storing, not one that is still to come.
    let Shown(mark) = row.screen.shows("mark");
    let (time, mark) = (shown["time"].as_str(), mark["time"].as_str());
    anyhow::ensure!(time.is_some() && time <= mark, "{time:?}, and a message after it {mark:?}");
    let [_, last] = row.send([value(now_ms(), 2), value(now_ms() + 1, 3)]).await?;
    let healed = |screen: &Screen| screen.problem(CHANNEL).is_null().then_some(());
    row.screen.read_until("the problem to end, 10 s after its last message", healed).await?;
    row.all_show(&json!({"seq": last, "values": {"v": 3}})).await
}

async fn p7(mut row: Row<'_>) -> anyhow::Result<Shown> {
    row.send([r#"{"temp":20}"#]).await?;
    let Shown(first) = row.screen.shows(CHANNEL);
    let [last] = row.send([r#"{"hum":50}"#]).await?;
    let expected = json!({
        "seq": last, "values": {"temp": 20, "hum": 50}, "at": {"temp": first["time"]},
    });
    row.all_show(&expected).await
}

async fn j1(plant: &Plant, mut row: Row<'_>) -> anyhow::Result<Shown> {
    let [only] = row.send([r#"{"on":1}"#]).await?;
    wait_until_dropped(plant, row.fixture).await?;
    row.all_show(&json!({"seq": only, "values": {"on": true}})).await
}

#[tokio::test]
async fn every_row_of_the_table_shows_the_same_in_all_places() -> anyhow::Result<()> {
    let number = |name: &str| format!("{{name: {name}, pointer: /{name}, type: Number}}");
    let timed = "timestamp: {pointer: /ts, unit: Milliseconds";
    let rows: Vec<(Fixture, RowTest)> = vec![
        (
            Fixture::new("S1", &format!("when: values.v >= 0, fields: [{}]", number("v"))),
            Box::new(|_, row| s1(row).boxed_local()),
        ),
        (
            Fixture::new("P1", &format!("timestamp: {{pointer: /ts, unit: Seconds}}, {RUNNING}")),
            Box::new(|_, row| p1(row).boxed_local()),
        ),
        (
            Fixture::new(
                "P2",
                &format!(
                    "{timed}, maxAhead: 5s}}, delivery: {{policy: Every}}, fields: [{}]",
                    number("code")
                ),
            ),
            Box::new(|plant, row| p2(plant, row).boxed_local()),
        ),
        (Fixture::new("P3", RUNNING), Box::new(|_, row| p3(row).boxed_local())),
        (
            Fixture::new("P6", &format!("{timed}}}, fields: [{}]", number("v"))),
            Box::new(|_, row| p6(row).boxed_local()),
        ),
        (
            Fixture::new(
                "P7",
                &format!("record: {{merge: true}}, fields: [{}, {}]", number("temp"), number("hum")),
            ),
            Box::new(|_, row| p7(row).boxed_local()),
        ),
        (
            Fixture::new("J1", "fields: [{name: 'on', pointer: /on, type: Bool}]").of(BRIEF),
            Box::new(|plant, row| j1(plant, row).boxed_local()),
        ),
    ];
    run(rows).await
}
