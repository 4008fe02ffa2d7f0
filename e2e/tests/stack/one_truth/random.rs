//! Random formats and messages on real parts: whenever one looks, all places show the same, and a pod that
//! has just started does too. The model test of the fan-out tries far more of them
//! (`dataplane/src/fanout/state/tests/one_truth.rs`); this one shows that NATS plays along.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::ensure;
use flutecast_testkit::Dataplane;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::plant::{CHANNEL, Fixture, Plant, Row};
use super::screen::{Screen, Shown, as_json};
use crate::factory::now_ms;

const CASES: u64 = 50;
/// How many cases run at the same time.
const SIDE_BY_SIDE: usize = 10;
/// The messages of a case before and after one of the pods starts anew.
const MESSAGES: u64 = 10;

/// SplitMix64: each seed gives the same case again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }
}

/// A format, and what "the same" means for it.
struct Format {
    spec: String,
    /// `false` if a screen that was there may lawfully show an older message: a `Latest` channel pushes no
    /// message in which nothing changed, or nothing by as much as the deadband.
    exact: bool,
    every: bool,
    deadband: f64,
}

impl Format {
    fn new(random: &mut Random) -> Self {
        let timestamp = random.of(&[
            "",
            "timestamp: {pointer: /ts, unit: Milliseconds}, ",
            "timestamp: {pointer: /ts, unit: Milliseconds, maxAge: 30s, maxAhead: 5s}, ",
            "timestamp: {pointer: /ts, unit: Seconds}, ",
        ]);
        let delivery = random.of(&[
            "",
            "delivery: {policy: Latest, minInterval: 100ms}, ",
            "delivery: {policy: Every}, ",
            "record: {merge: true}, ",
            "record: {merge: true, expireFields: 1m}, ",
        ]);
        let when = random.of(&["", "when: values.a >= 0, "]);
        let trigger = random.of(&["", "", ", onChange: true", ", deadband: 2"]);
        // A field without a trigger is news whenever it is there.
        let always = if trigger.is_empty() { "" } else { ", onChange: true" };
        let otherwise = random.of(&["", ", otherwise: fault"]);
        let computed = if trigger.is_empty() {
            random.of(&["", ", {name: sum, expression: values.a + values.b}"])
        } else {
            ""
        };
        let spec = format!(
            "{timestamp}{delivery}{when}fields: [{{name: a, pointer: /a, type: Number{trigger}}}, \
             {{name: b, pointer: /b, type: Number{always}}}, \
             {{name: st, pointer: /st, type: Enum, values: {{'0': stopped, '1': running}}\
             {otherwise}{always}}}\
             {computed}]"
        );
        let every = delivery.contains("Every");
        let exact = trigger.is_empty() || every;
        let deadband = if trigger.contains("deadband") { 2.0 } else { 0.0 };
        Self { spec, exact, every, deadband }
    }

    fn same(&self, one: &Shown, other: &Shown) -> bool {
        let (one, other) = (one.without_problem(), other.without_problem());
        if self.exact || one == other {
            return one == other;
        }
        let (Shown(one), Shown(other)) = (one, other);
        let (Some(a), Some(b)) = (one["values"].as_object(), other["values"].as_object()) else {
            return false;
        };
        let close = |name: &String, here: &Value, there: &Value| {
            here == there
                || name == "a"
                    && here.as_f64().zip(there.as_f64()).is_some_and(|(x, y)| (x - y).abs() < self.deadband)
        };
        a.len() == b.len()
            && a.iter().all(|(name, here)| b.get(name).is_some_and(|there| close(name, here, there)))
    }
}

/// A message of a device that is as far from ideal as can be.
fn message(random: &mut Random, before: Option<&String>) -> String {
    if let Some(before) = before.filter(|_| random.below(8) == 0) {
        return before.clone();
    }
    if random.below(10) == 0 {
        return random
            .of(&["online", "", "{\"a\":1", "{\"hb\":1}", "[]", "{\"ts\":\"x\",\"a\":1}"])
            .to_owned();
    }
    let offset = random.of(&[
        "0", "0", "0", "-1", "-300", "-900", "-1100", "-3000", "-7000", "-20000", "-40000", "-70000", "300",
        "1500", "3000", "6000", "3600000",
    ]);
    let ts = now_ms().saturating_add_signed(offset.parse().expect("a number"));
    let mut text = format!("{{\"ts\":{}", if random.below(2) == 0 { ts } else { ts / 1_000 });
    for field in ["a", "b", "st"] {
        if random.below(3) > 0 {
            let value = random.of(&["0", "1", "2", "3", "-1", "0.5", "7", "null", "\"x\"", "NaN", "{}"]);
            write!(text, ",\"{field}\":{value}").expect("to a string");
        }
    }
    text + "}"
}

struct Case {
    seed: u64,
    random: Random,
    format: Format,
    /// The messages so far, by their place in the stream.
    sent: BTreeMap<u64, String>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let format = Format::new(&mut random);
        Self { seed, random, format, sent: BTreeMap::new() }
    }

    /// Sends messages, and looks from everywhere now and then.
    async fn run(&mut self, row: &mut Row<'_>, pods: [&Dataplane; 2]) -> anyhow::Result<()> {
        for n in 0..MESSAGES {
            let message = message(&mut self.random, self.sent.values().next_back());
            let [place] = row.send([&message]).await?;
            self.sent.insert(place, message);
            if n + 1 == MESSAGES || self.random.below(4) == 0 {
                self.look(row, pods).await.map_err(|error| {
                    let Self { seed, format, sent, .. } = self;
                    anyhow::anyhow!("case {seed}: {error:#}\n{}\n{sent:#?}", format.spec)
                })?;
            }
        }
        Ok(())
    }

    /// Returns whether both show the same. An event that repeats the one directly before it may be shown in
    /// its place.
    fn same(&self, one: &Shown, other: &Shown) -> bool {
        let payload = |shown: &Shown| shown.0["seq"].as_u64().and_then(|place| self.sent.get(&place));
        self.format.same(one, other)
            || self.format.every && payload(one).is_some() && payload(one) == payload(other)
    }

    async fn look(&self, row: &mut Row<'_>, pods: [&Dataplane; 2]) -> anyhow::Result<()> {
        let Fixture { tenant, device, .. } = row.fixture;
        let [one, two] = pods;
        row.settle_on(two).await?;
        let there = as_json(two, tenant, device, CHANNEL).await?;
        let what = format!("the screen that was there to show what the other pod does: {there:?}");
        // Without a value the API has none, and there was no event.
        let same = |screen: &Screen| self.same(&screen.shows(CHANNEL), &there).then_some(());
        row.screen.read_until(&what, same).await?;
        for (place, pod) in [("the pod of the first screen", one), ("the other pod", two)] {
            let shown = as_json(pod, tenant, device, CHANNEL).await?;
            ensure!(self.same(&shown, &there), "JSON of {place}: {shown:?}, not {there:?}");
            let mut new = Screen::open(pod, tenant, device).await?;
            // A value that is held back for `minInterval` comes after the one before it.
            let same = |screen: &Screen| self.same(&screen.shows(CHANNEL), &there).then_some(());
            new.read_until(&format!("a new screen on {place} to show {there:?}"), same).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn random_messages_show_the_same_in_all_places() -> anyhow::Result<()> {
    let cases: Vec<_> = (1..=CASES).map(Case::new).collect();
    let fixtures: Vec<_> =
        cases.iter().map(|case| Fixture::new(&format!("C-{}", case.seed), &case.format.spec)).collect();
    let mut plant = Plant::start(&fixtures).await?;
    let other = plant.stack.dataplane().await?;
    let cases: Vec<Case> = {
        let plant = &plant;
        let two = &plant.two;
        let runs = cases.into_iter().zip(&fixtures).map(async |(mut case, fixture)| {
            let mut row = Row::begin(plant, fixture).await?;
            case.run(&mut row, [&plant.one, two]).await?;
            // The second pod goes, and another one comes: it has seen nothing yet.
            case.run(&mut row, [&plant.one, &other]).await?;
            anyhow::Ok(case)
        });
        stream::iter(runs).buffer_unordered(SIDE_BY_SIDE).try_collect().await?
    };
    plant.two.process.kill().await?;
    let new = plant.stack.dataplane().await?;
    for case in &cases {
        let device = format!("C-{}", case.seed);
        let (one, new) = tokio::try_join!(
            as_json(&plant.one, "acme", &device, CHANNEL),
            as_json(&new, "acme", &device, CHANNEL),
        )?;
        assert!(case.same(&one, &new), "{}: {one:?} and {new:?}", json!(case.sent));
    }
    Ok(())
}
