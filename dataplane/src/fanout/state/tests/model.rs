//! In any order of steps, each client gets every event of its `Every` channels once and in order, and an id
//! only when everything before it was delivered.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::fanout::Unavailable;
use crate::fanout::state::phase::READ_TIMEOUT;

const DEVICES: [&str; 3] = ["A", "B", "C"];

#[derive(Debug, Clone)]
enum ModelStep {
    /// Stores a message: device, whether on `every`.
    Publish(usize, bool),
    /// Brings this many of the republished messages to the state.
    Deliver(usize),
    /// The connection to the broker is lost, with the messages on their way.
    Disconnect,
    /// Starts a read.
    StartRead,
    /// Answers the oldest read.
    AnswerRead,
    /// The oldest read fails.
    FailRead,
    Audit,
    /// A client comes, for these devices (bits).
    Attach(usize),
    /// A client leaves; with true it comes back with its last id.
    Detach(usize, bool),
    Replay,
    Pass(u64),
    /// The mapping changes: the channels become stale after another time.
    ChangeFormat,
}

fn step() -> impl Strategy<Value = ModelStep> {
    prop_oneof![
        12 => (0..DEVICES.len(), prop::bool::weighted(0.8))
            .prop_map(|(device, every)| ModelStep::Publish(device, every)),
        8 => (1..6_usize).prop_map(ModelStep::Deliver),
        1 => Just(ModelStep::Disconnect),
        4 => Just(ModelStep::StartRead),
        4 => Just(ModelStep::AnswerRead),
        1 => Just(ModelStep::FailRead),
        1 => Just(ModelStep::Audit),
        2 => (1..8_usize).prop_map(ModelStep::Attach),
        2 => (0..8_usize, prop::bool::ANY).prop_map(|(client, back)| ModelStep::Detach(client, back)),
        2 => Just(ModelStep::Replay),
        1 => (0..3_000_u64).prop_map(ModelStep::Pass),
        1 => Just(ModelStep::ChangeFormat),
    ]
}

struct ModelClient {
    connection: u64,
    backlog: Arc<Backlog>,
    devices: Vec<&'static str>,
    resumed_at: Option<u64>,
    /// The events of each of its `Every` channels, as `n`.
    got: BTreeMap<&'static str, Vec<u64>>,
    last_id: Option<u64>,
}

struct Model {
    harness: Harness,
    wire: VecDeque<(ChannelKey, LiveMessage)>,
    reads: VecDeque<ReadRequest>,
    clients: Vec<ModelClient>,
    /// The time that the steps so far have taken.
    passed: Duration,
    /// Number of changes of the format. After each, the current value comes again.
    formats: u64,
}

impl Model {
    fn attach(&mut self, bits: usize, resume: Option<u64>) {
        let devices: Vec<&'static str> =
            (0..DEVICES.len()).filter(|bit| bits >> bit & 1 == 1).map(|bit| DEVICES[bit]).collect();
        self.attach_to(devices, resume);
    }

    fn attach_to(&mut self, devices: Vec<&'static str>, resume: Option<u64>) {
        let (connection, backlog) = self.harness.attach(&devices, resume);
        let got = devices.iter().map(|device| (*device, Vec::new())).collect();
        self.clients.push(ModelClient {
            connection,
            backlog,
            devices,
            resumed_at: resume,
            got,
            last_id: resume,
        });
    }

    fn detach(&mut self, client: usize, back: bool) {
        let client = self.clients.swap_remove(client);
        client.backlog.detach();
        self.harness.state.detach(client.connection, self.harness.now);
        if back && client.last_id.is_some() {
            self.attach_to(client.devices, client.last_id);
        }
    }

    fn step(&mut self, step: ModelStep) {
        match step {
            ModelStep::Publish(device, every) => {
                let n = self.harness.last_sequence + 1;
                let live = self.harness.store(DEVICES[device], if every { "every" } else { "latest" }, n);
                self.wire.extend(live);
            }
            ModelStep::Deliver(count) => {
                let count = count.min(self.wire.len());
                self.harness.state.apply_live(self.wire.drain(..count), self.harness.now);
            }
            ModelStep::Disconnect => {
                self.wire.clear();
                self.harness.state.read_all_again(self.harness.now);
            }
            ModelStep::StartRead => self.reads.extend(self.harness.start_read()),
            ModelStep::AnswerRead => {
                if let Some(request) = self.reads.pop_front() {
                    self.harness.finish_read(&request);
                }
            }
            ModelStep::FailRead => {
                if let Some(request) = self.reads.pop_front() {
                    let (keys, failure) = (request.channel_keys(), Unavailable::BrokerAway);
                    self.harness.state.read_failed(&keys, failure, self.harness.now);
                }
            }
            ModelStep::Audit => self.harness.audit(),
            ModelStep::Attach(bits) => self.attach(bits, None),
            ModelStep::Detach(client, back) => {
                if client < self.clients.len() {
                    self.detach(client, back);
                }
            }
            ModelStep::Replay => self.harness.replay_all(),
            ModelStep::Pass(millis) => {
                // Reads that fail for as long as `READ_TIMEOUT` rightly end in a gap, which this test must
                // not bring about.
                let passed = self.passed + Duration::from_millis(millis);
                if passed < READ_TIMEOUT {
                    self.passed = passed;
                    self.harness.pass(Duration::from_millis(millis));
                }
            }
            ModelStep::ChangeFormat => {
                self.formats += 1;
                let catalog = catalog_with(&DEVICES, None, 3_600_000 + self.formats);
                assert!(self.harness.state.change_catalog(Some(catalog), self.harness.now));
            }
        }
    }

    /// Takes what the clients have got, and checks each id.
    fn check(&mut self) {
        for client in &mut self.clients {
            for got in take(&client.backlog) {
                match got {
                    Got::Data(device, channel, n, id) if channel == "every" => {
                        let values = client.got.get_mut(device.as_str()).expect("a device that it wants");
                        let had = values.last().copied().or(client.resumed_at).is_some_and(|last| n <= last);
                        if self.formats > 0 && !id && had && values.last().is_none_or(|last| *last == n) {
                            // The current value comes again.
                            continue;
                        }
                        assert!(values.last().is_none_or(|last| *last < n), "{device}: {n} after {values:?}");
                        values.push(n);
                    }
                    Got::Id(id) => {
                        assert!(
                            client.last_id.is_none_or(|last| last <= id),
                            "{id} after {:?}",
                            client.last_id
                        );
                        client.last_id = Some(id);
                        client.complete_up_to(id, &self.harness.stored);
                    }
                    Got::Named(name, data) => assert_ne!(name, "gap", "{data}"),
                    Got::Data(..) => {}
                }
            }
        }
    }
}

impl ModelClient {
    /// Checks that all events of its channels, from where it began up to `end`, came once and in order.
    fn complete_up_to(&self, end: u64, stored: &[StoredMessage]) {
        for (device, got) in &self.got {
            let subject = format!("iot.acme.{device}.every");
            let start = self.resumed_at.map_or_else(|| got.first().copied().unwrap_or(end + 1), |id| id + 1);
            let expected: Vec<u64> = stored
                .iter()
                .filter(|message| message.subject == subject && (start..=end).contains(&message.sequence.0))
                .map(n_of)
                .collect();
            let until: Vec<u64> = got.iter().copied().filter(|n| *n <= end).collect();
            assert_eq!(until, expected, "{device} up to {end}, resumed at {:?}", self.resumed_at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_comes_once_in_order_and_ids_are_safe(steps in prop::collection::vec(step(), 1..250)) {
        let mut model = Model {
            harness: Harness::new(&DEVICES),
            wire: VecDeque::new(),
            reads: VecDeque::new(),
            clients: Vec::new(),
            passed: Duration::ZERO,
            formats: 0,
        };
        for step in steps {
            model.step(step);
            model.check();
        }
        // In the end nothing is under way any more, and every client has got everything.
        for _ in 0..20 {
            while let Some(request) = model.reads.pop_front() {
                model.harness.finish_read(&request);
            }
            model.step(ModelStep::Deliver(usize::MAX));
            model.harness.read_all();
            model.harness.replay_all();
            model.check();
        }
        for device in DEVICES {
            model.step(ModelStep::Publish(DEVICES.iter().position(|d| *d == device).unwrap(), true));
            model.step(ModelStep::Deliver(usize::MAX));
        }
        model.harness.read_all();
        model.harness.replay_all();
        model.step(ModelStep::Audit);
        // Two times: the first one may bring `stale` instead of a ping.
        for _ in 0..2 {
            model.harness.pass(Duration::from_secs(16));
            model.check();
        }
        let last = model.harness.last_sequence;
        for client in &model.clients {
            client.complete_up_to(last, &model.harness.stored);
            prop_assert_eq!(client.last_id, Some(last), "every client is settled in the end");
        }
    }
}
