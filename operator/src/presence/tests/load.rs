//! Many devices. Slow without optimisation, so `make check` leaves this module out.

use flutecast_crds::Presence;

use super::seconds;
use super::world::World;

#[test]
fn ten_thousand_devices_are_looked_up_once_in_their_stale_after() {
    let mut world = World::new(&vec![vec![seconds(10); 3]; 10_000]);
    let (mut asked, mut requests) = (0, 0);
    for step in 0..5 * 80 {
        if step == 5 * 20 {
            (asked, requests) = (world.asked, world.requests);
        }
        // Each publishes once a second on each channel; more messages would cause no more lookups.
        for device in (0..10_000).filter(|device| device % 5 == step % 5) {
            (0..3).for_each(|channel| world.send(device, channel));
        }
        world.step();
    }
    let per_stale_after = (world.asked - asked) as f64 / 10_000.0 / 6.0;
    assert!(per_stale_after < 1.3, "{per_stale_after} subjects of each device");
    assert!(world.requests - requests <= 5 * 60 * 2, "{} requests in a minute", world.requests - requests);
    assert!(world.reports.iter().all(|(_, _, report)| report.presence == Presence::Online));
    assert_eq!(world.scheduler.counts()[0], (Presence::Online, 10_000));
}
