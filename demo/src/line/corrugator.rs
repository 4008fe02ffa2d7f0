//! CORR-01: the corrugator, which determines the speed of all machines before the sheet buffer.

use super::alarm::{Alarm, AlarmNotice, AlarmPanel};
use super::drive::{Demand, Drive, DriveLimits};
use super::order::{Order, OrderBook};
use super::physics::{Countdown, Noise, Recurring, Wander, between, noise, raw, whole};
use super::steam::Steam;

/// The length of an order, in linear metres: one to two minutes at production speed.
const ORDER_METRES: (f64, f64) = (220.0, 420.0);
/// The first order is shorter, so that a viewer sees it change within a minute of the start.
const FIRST_ORDER_METRES: (f64, f64) = (90.0, 140.0);
const THREADING_SPEED: f64 = 28.0;
/// The speed during a change of orders, in m/min.
const CHANGE_SPEED: f64 = 90.0;

const LIMITS: DriveLimits =
    DriveLimits { up_per_s: 14.0, down_per_s: 22.0, emergency_per_s: 75.0, off_after_s: 4.0, warm_up_s: 1.2 };

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Stopped; holds the time until threading, in seconds.
    Stopped { left_s: f64 },
    /// Paper is threaded at crawl speed.
    Threading { left_s: f64 },
    /// Board is produced.
    Running,
    /// The tension rises until the web breaks.
    Straining { left_s: f64 },
}

/// The effects of a step on the rest of the line.
#[derive(Debug, Default)]
pub(crate) struct CorrugatorStep {
    /// The new order, if one ended.
    pub(crate) new_order: Option<Order>,
    /// Good board, in linear metres.
    pub(crate) good_metres: f64,
    /// Alarms that were raised or cleared.
    pub(crate) alarms: Vec<AlarmNotice>,
}

#[derive(Debug, Clone)]
pub(crate) struct Corrugator {
    noise: Noise,
    phase: Phase,
    drive: Drive,
    steam: Steam,
    orders: OrderBook,
    order: Order,
    total: f64,
    waste: f64,
    operator_trim: f64,
    nudges: Recurring,
    breaks: Recurring,
    order_change: Countdown,
    speed_noise: Wander,
    tension_noise: Wander,
    gap_noise: Wander,
    panel: AlarmPanel,
}

impl Corrugator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = noise(seed, 2);
        let mut orders = OrderBook::new(seed);
        let order = orders.next(FIRST_ORDER_METRES);
        Self {
            phase: Phase::Threading { left_s: 4.0 },
            drive: Drive::new(LIMITS),
            steam: Steam::new(&mut noise),
            orders,
            order,
            total: 0.0,
            waste: 0.0,
            operator_trim: 0.0,
            nudges: Recurring::new((5.0, 8.0), (5.0, 11.0), &mut noise),
            breaks: Recurring::new((80.0, 120.0), (150.0, 260.0), &mut noise),
            order_change: Countdown::default(),
            speed_noise: Wander::new(0.35, 1.5),
            tension_noise: Wander::new(6.0, 2.0),
            gap_noise: Wander::new(1.2, 3.0),
            panel: AlarmPanel::default(),
            noise,
        }
    }

    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    pub(crate) fn on(&self) -> bool {
        self.drive.on()
    }

    /// Returns the state as sent: 0 stopped, 1 running, 2 threading.
    pub(crate) fn state(&self) -> i64 {
        match self.phase {
            Phase::Stopped { .. } => 0,
            Phase::Threading { .. } => 2,
            Phase::Running | Phase::Straining { .. } => 1,
        }
    }

    /// Returns the measured speed of the web, in m/min.
    pub(crate) fn speed(&self) -> f64 {
        if self.drive.stands() { 0.0 } else { (self.drive.speed() + self.speed_noise.value()).max(0.0) }
    }

    pub(crate) fn step(&mut self, dt_s: f64) -> CorrugatorStep {
        let mut step = CorrugatorStep::default();
        let noise = &mut self.noise;
        self.speed_noise.step(dt_s, noise);
        self.tension_noise.step(dt_s, noise);
        self.gap_noise.step(dt_s, noise);
        self.steam.step(self.drive.speed(), dt_s, noise);
        self.order_change.step(dt_s);
        if self.nudges.step(dt_s, noise) {
            self.operator_trim = between(noise, (-18.0, 18.0));
        }
        self.move_phase(dt_s);
        self.drive.step(self.demand(), dt_s);
        self.count(dt_s, &mut step);
        let web_broken = matches!(self.phase, Phase::Stopped { .. });
        step.alarms.extend(self.panel.update(Alarm::LowSteam, self.steam.low()));
        step.alarms.extend(self.panel.update(Alarm::WebBreak, web_broken));
        step
    }

    fn move_phase(&mut self, dt_s: f64) {
        let noise = &mut self.noise;
        let break_due = self.breaks.step(dt_s, noise);
        self.phase = match self.phase {
            Phase::Running if break_due => Phase::Straining { left_s: 2.0 },
            Phase::Running => Phase::Running,
            Phase::Straining { left_s } if left_s > dt_s => Phase::Straining { left_s: left_s - dt_s },
            Phase::Straining { .. } => Phase::Stopped { left_s: between(noise, (11.0, 19.0)) },
            Phase::Stopped { left_s } if left_s > dt_s => Phase::Stopped { left_s: left_s - dt_s },
            Phase::Stopped { .. } => Phase::Threading { left_s: between(noise, (5.0, 8.0)) },
            Phase::Threading { left_s } if left_s > dt_s => Phase::Threading { left_s: left_s - dt_s },
            Phase::Threading { .. } => Phase::Running,
        };
    }

    fn demand(&self) -> Demand {
        match self.phase {
            Phase::Stopped { .. } => Demand::EmergencyStop,
            Phase::Threading { .. } => Demand::Run(THREADING_SPEED),
            Phase::Running | Phase::Straining { .. } if self.order_change.runs() => Demand::Run(CHANGE_SPEED),
            Phase::Running | Phase::Straining { .. } => {
                let wanted = self.order.speed + self.operator_trim;
                Demand::Run(if self.steam.low() { 0.72 * wanted } else { wanted })
            }
        }
    }

    /// Counts the board made, and starts the next order when this one is complete.
    fn count(&mut self, dt_s: f64, step: &mut CorrugatorStep) {
        let made = self.speed() / 60.0 * dt_s;
        let waste_share = match self.phase {
            Phase::Running if self.order_change.runs() => 0.15,
            Phase::Running => 0.012,
            Phase::Straining { .. } => 0.3,
            Phase::Stopped { .. } | Phase::Threading { .. } => 1.0,
        };
        self.total += made;
        self.waste += made * waste_share;
        step.good_metres = made * (1.0 - waste_share);
        if self.total - self.waste >= self.order.metres {
            self.order = self.orders.next(ORDER_METRES);
            (self.total, self.waste) = (0.0, 0.0);
            self.order_change.set(between(&mut self.noise, (5.0, 8.0)));
            step.new_order = Some(self.order.clone());
        }
    }

    /// Returns the values of a telemetry message.
    pub(crate) fn telemetry(&self) -> Vec<(&'static str, i64)> {
        let speed = self.speed();
        let pull = match self.phase {
            Phase::Stopped { .. } => 0.0,
            Phase::Straining { left_s } => 260.0 + 1.4 * speed + 160.0 * (2.0 - left_s),
            Phase::Running | Phase::Threading { .. } => 260.0 + 1.4 * speed,
        };
        let tension = if pull > 0.0 { (pull + self.tension_noise.value()).max(0.0) } else { 0.0 };
        let gap = 82.0 + 0.14 * speed + self.gap_noise.value();
        let (pressures, temperatures) = (self.steam.pressures(), self.steam.temperatures());
        vec![
            ("speed", raw(speed, 0.1)),
            ("steamPreheater1", raw(pressures[0], 0.01)),
            ("steamPreheater2", raw(pressures[1], 0.01)),
            ("steamDoubleBacker", raw(pressures[2], 0.01)),
            ("tempPreheater1", raw(temperatures[0], 0.1)),
            ("tempPreheater2", raw(temperatures[1], 0.1)),
            ("tempDoubleBacker", raw(temperatures[2], 0.1)),
            ("glueGap", raw(gap, 1.0)),
            ("webTension", raw(tension, 1.0)),
            ("st", self.state()),
        ]
    }

    /// Returns the good and total linear metres of the order.
    pub(crate) fn counts(&self) -> (i64, i64) {
        (whole(self.total - self.waste), whole(self.total))
    }
}
