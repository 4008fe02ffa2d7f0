//! A pod whose clock is wrong shows what the others show: the broker's clock judges (F4).

use std::time::Duration;

use flutecast_testkit::{Dataplane, FakeClock, wait_until};
use serde_json::{Value, json};

use super::plant::{CHANNEL, Fixture, LASTING, stack_of, stored_subject};
use super::screen::{Screen, as_json};
use crate::factory::{SOON, now_ms};

const TIMES: &str = "timestamp: {pointer: /ts, unit: Milliseconds, maxAge: 30s, maxAhead: 5s}, \
                     fields: [{name: v, pointer: /v, type: Number}]";
/// The offset of the broker's clock from a pod's, as the pod has measured it.
const OFFSET: &str = "flutecast_broker_clock_offset_seconds";

/// Waits until the screen shows this value. Returns the values of all its events.
async fn values(screen: &mut Screen, last: u64) -> anyhow::Result<Vec<u64>> {
    let what = format!("value {last}");
    let shown =
        |screen: &Screen| (screen.events(CHANNEL).last()?["values"]["v"] == json!(last)).then_some(());
    screen.read_until(&what, shown).await?;
    Ok(screen.events(CHANNEL).iter().filter_map(|event| event["values"]["v"].as_u64()).collect())
}

/// Waits until the pod has measured that the broker's clock is so many seconds ahead of its own.
async fn wait_for_offset(pod: &Dataplane, seconds: f64) -> anyhow::Result<()> {
    wait_until(&format!("an offset of {seconds} s"), SOON + SOON, async || match pod.metric(OFFSET).await {
        Ok(measured) if (measured - seconds).abs() < 1.0 => Ok(()),
        Ok(measured) => Err(measured.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[tokio::test]
async fn a_pod_whose_clock_is_wrong_shows_what_the_others_show() -> anyhow::Result<()> {
    let every = format!("{TIMES}, delivery: {{policy: Every}}");
    let fixtures = [Fixture::new("L-1", TIMES).channel(", staleAfter: 20s"), Fixture::new("E-1", &every)];
    let stack = stack_of(&fixtures).await?;
    let clock = FakeClock::new()?;
    // The plants of the field report: a node that is 6 s behind, and one that is set while it runs.
    clock.set(-6)?;
    let (right, mut wrong) = tokio::try_join!(stack.dataplane(), stack.dataplane_at(&clock))?;
    let publisher = stack.publisher().await?;

    let mut last = 0;
    let mut screens = Vec::new();
    for fixture in &fixtures {
        for pod in [&right, &wrong] {
            screens.push((fixture, Screen::open(pod, LASTING, &fixture.device).await?));
        }
    }
    for seconds in [-6, 31, 60, -120] {
        clock.set(seconds)?;
        for _ in 0..5 {
            last += 1;
            for fixture in &fixtures {
                let payload = format!(r#"{{"ts":{},"v":{last}}}"#, now_ms());
                publisher.publish(&stored_subject(fixture, CHANNEL)?, payload).await?;
            }
        }
        for (fixture, screen) in &mut screens {
            let got = values(screen, last).await?;
            let device = &fixture.device;
            if device == "E-1" {
                assert_eq!(got, (1..=last).collect::<Vec<_>>(), "the pod's clock {seconds} s wrong");
            }
            assert_eq!(screen.problem(CHANNEL), &Value::Null, "{device}");
            assert!(!screen.others.iter().any(|name| name == "gap"), "{:?}", screen.others);
        }
        // A pod that is ahead doesn't take what came just now for stale.
        let new = Screen::open(&wrong, LASTING, "L-1").await?;
        assert!(!new.others.iter().any(|name| name == "stale"), "{seconds} s wrong: {:?}", new.others);
        for fixture in &fixtures {
            let (here, there) = tokio::try_join!(
                as_json(&right, LASTING, &fixture.device, CHANNEL),
                as_json(&wrong, LASTING, &fixture.device, CHANNEL),
            )?;
            assert_eq!(here, there, "{}, the pod's clock {seconds} s wrong", fixture.device);
        }
    }
    wait_for_offset(&wrong, 120.0).await?;
    wait_for_offset(&right, 0.0).await?;
    let said = |line: &str| line.contains("WARN") && line.contains("clock");
    wrong.process.wait_for_line("a warning", Duration::from_secs(5), said).await?;
    assert!(!right.process.output().iter().any(|line| said(line)), "{}", right.process.tail());
    Ok(())
}
