//! FLEX-01: the flexo printer.

use super::alarm::{Alarm, AlarmNotice, AlarmPanel};
use super::count::Count;
use super::drive::{Demand, Drive, DriveLimits};
use super::physics::{Countdown, Noise, Recurring, Wander, approach, between, noise, raw};

/// Speeds in sheets/h.
const LIMITS: DriveLimits = DriveLimits {
    up_per_s: 1800.0,
    down_per_s: 3000.0,
    emergency_per_s: 6000.0,
    off_after_s: 7.0,
    warm_up_s: 1.0,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PrinterTask {
    /// Print at this speed, in sheets/h.
    Print(f64),
    /// Wait for sheets.
    Wait,
    /// Set up for the next order.
    SetUp,
    /// Stop at once: the stacker is jammed.
    Halt,
}

#[derive(Debug, Clone)]
pub(crate) struct Printer {
    noise: Noise,
    drive: Drive,
    count: Count,
    operator_trim: f64,
    nudges: Recurring,
    ink: Ink,
    register: Register,
    setting_up: bool,
    panel: AlarmPanel,
}

impl Printer {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = noise(seed, 4);
        Self {
            drive: Drive::new(LIMITS),
            count: Count::default(),
            operator_trim: 0.0,
            nudges: Recurring::new((6.0, 9.0), (6.0, 14.0), &mut noise),
            ink: Ink::new(),
            register: Register::new(&mut noise),
            setting_up: false,
            panel: AlarmPanel::default(),
            noise,
        }
    }

    /// Prints at most `available` sheets and returns the number of sheets taken.
    pub(crate) fn step(&mut self, task: PrinterTask, available: f64, dt_s: f64) -> f64 {
        if self.nudges.step(dt_s, &mut self.noise) {
            self.operator_trim = between(&mut self.noise, (-450.0, 450.0));
        }
        self.setting_up = task == PrinterTask::SetUp;
        self.drive.step(
            match task {
                PrinterTask::Print(speed) => Demand::Run(speed + self.operator_trim),
                PrinterTask::Wait | PrinterTask::SetUp => Demand::Stop,
                PrinterTask::Halt => Demand::EmergencyStop,
            },
            dt_s,
        );
        self.ink.step(!self.drive.stands(), dt_s, &mut self.noise);
        self.register.step(!self.drive.stands(), dt_s, &mut self.noise);
        let taken = available.min(self.drive.speed() / 3600.0 * dt_s);
        self.count.add(taken, if self.register.fault.runs() { 0.25 } else { 0.015 });
        taken
    }

    /// Returns the alarms raised or cleared in this step.
    pub(crate) fn alarms(&mut self) -> Vec<AlarmNotice> {
        let mut notices = Vec::new();
        if let Some(bad) = self.register.verdict(!self.drive.stands()) {
            notices.extend(self.panel.update(Alarm::RegisterError, bad));
        }
        if let Some(high) = self.ink.verdict() {
            notices.extend(self.panel.update(Alarm::InkViscosity, high));
        }
        notices
    }

    pub(crate) fn start_order(&mut self) {
        self.count = Count::default();
    }

    pub(crate) fn on(&self) -> bool {
        self.drive.on()
    }

    /// Returns the speed in sheets/h.
    pub(crate) fn speed(&self) -> f64 {
        self.drive.speed()
    }

    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Returns the values of a telemetry message.
    pub(crate) fn telemetry(&self) -> Vec<(&'static str, i64)> {
        let stands = self.drive.stands();
        let state = match (self.setting_up, stands) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        vec![
            ("speed", raw(self.drive.speed(), 1.0)),
            ("inkViscosity", raw(self.ink.viscosity, 0.1)),
            ("inkTemp", raw(23.5 + self.ink.temperature.value(), 0.1)),
            ("registerError", raw(if stands { 0.0 } else { self.register.error() }, 1.0)),
            ("st", state),
        ]
    }
}

/// The ink. Water evaporates while the printer runs, and an operator thins the ink after the alarm.
#[derive(Debug, Clone)]
struct Ink {
    /// In seconds, as measured with a flow cup.
    viscosity: f64,
    /// In °C, as a deviation.
    temperature: Wander,
    thinning: Countdown,
}

impl Ink {
    /// The viscosity at which the alarm is raised.
    const HIGH: f64 = 25.0;
    /// The viscosity at which the alarm is cleared.
    const GOOD: f64 = 22.5;
    /// The time from the alarm until the water is mixed in, in seconds. An operator arrives after the first
    /// half.
    const THINNING_S: f64 = 20.0;

    fn new() -> Self {
        Self { viscosity: 22.0, temperature: Wander::new(0.5, 20.0), thinning: Countdown::default() }
    }

    fn step(&mut self, prints: bool, dt_s: f64, noise: &mut Noise) {
        self.temperature.step(dt_s, noise);
        self.thinning.step(dt_s);
        if self.viscosity > Self::HIGH && !self.thinning.runs() {
            self.thinning.set(Self::THINNING_S);
        }
        if self.thinning.runs() && self.thinning.left_s() < Self::THINNING_S / 2.0 {
            self.viscosity = approach(self.viscosity, 21.0, 0.0, 0.6, dt_s);
        } else if prints {
            self.viscosity += 0.016 * dt_s;
        }
    }

    /// Returns whether the viscosity is too high; `None` between the two limits.
    fn verdict(&self) -> Option<bool> {
        match self.viscosity {
            high if high > Self::HIGH => Some(true),
            good if good < Self::GOOD => Some(false),
            _ => None,
        }
    }
}

/// The register error between colours, in µm.
#[derive(Debug, Clone)]
struct Register {
    wander: Wander,
    offset: f64,
    faults: Recurring,
    fault: Countdown,
}

impl Register {
    /// The error at which the alarm is raised, in µm.
    const BAD: f64 = 300.0;
    /// The error at which the alarm is cleared, in µm.
    const GOOD: f64 = 180.0;

    fn new(noise: &mut Noise) -> Self {
        Self {
            wander: Wander::new(28.0, 1.2),
            offset: 0.0,
            faults: Recurring::new((12.0, 18.0), (50.0, 85.0), noise),
            fault: Countdown::default(),
        }
    }

    fn step(&mut self, prints: bool, dt_s: f64, noise: &mut Noise) {
        self.wander.step(dt_s, noise);
        self.fault.step(dt_s);
        if prints && self.faults.step(dt_s, noise) {
            self.fault.set(between(noise, (6.0, 11.0)));
        }
        let drift = if self.fault.runs() { 480.0 } else { 0.0 };
        self.offset = approach(self.offset, drift, 160.0, 220.0, dt_s);
    }

    fn error(&self) -> f64 {
        self.offset + self.wander.value()
    }

    /// Returns whether the error is too large; `None` between the two limits.
    fn verdict(&self, prints: bool) -> Option<bool> {
        match self.error().abs() {
            bad if bad > Self::BAD && prints => Some(true),
            good if good < Self::GOOD || !prints => Some(false),
            _ => None,
        }
    }
}
