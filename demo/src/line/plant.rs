//! The whole plant: advances all machines and collects their reports.

use super::alarm::AlarmNotice;
use super::corrugator::Corrugator;
use super::device::{Channel, Device};
use super::finishing::Finishing;
use super::slitter::Slitter;

/// The step of the model, in milliseconds: the period of the fastest device.
pub(crate) const STEP_MS: u64 = 100;
const STEP_S: f64 = 0.1;
/// Interval at which each device reports its power, changed or not, in milliseconds.
const POWER_REPEAT_MS: u64 = 30_000;
/// Interval of the counter reports, in milliseconds.
pub(crate) const COUNTERS_PERIOD_MS: u64 = 1000;

/// Interval at which a device sends telemetry, in milliseconds.
pub(crate) const fn telemetry_period_ms(device: Device) -> u64 {
    match device {
        Device::Corrugator => 200,
        Device::Slitter | Device::DieCutter => 500,
        Device::Flexo => 100,
        Device::Stacker => 1000,
    }
}

/// Returns the offset of a device's telemetry within its period, so that not all devices send at once.
const fn phase_ms(device: Device) -> u64 {
    match device {
        Device::Corrugator | Device::Flexo => 0,
        Device::Slitter => 100,
        Device::DieCutter => 300,
        Device::Stacker => 700,
    }
}

/// A message of a machine, or of the MES, after a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Telemetry(Device, Vec<(&'static str, i64)>),
    Power(Device, bool),
    Counters { order: String, good: i64, total: i64 },
    Mes(Vec<(Device, String, i64, i64)>),
    Alarm(Device, AlarmNotice),
}

#[derive(Debug, Clone)]
pub(crate) struct Plant {
    corrugator: Corrugator,
    slitter: Slitter,
    finishing: Finishing,
    /// The power that was last reported by each device; `None` before the first report.
    power: [Option<bool>; 5],
}

impl Plant {
    pub(crate) fn new(seed: u64) -> Self {
        let corrugator = Corrugator::new(seed);
        Self {
            slitter: Slitter::new(seed, &corrugator),
            finishing: Finishing::new(seed, corrugator.order()),
            corrugator,
            power: [None; 5],
        }
    }

    /// Advances the plant by [`STEP_MS`]; `now_ms` is the time after the step.
    pub(crate) fn step(&mut self, now_ms: u64) -> Vec<Report> {
        let dt_s = STEP_S;
        let mut reports = Vec::new();
        let order = self.corrugator.order().clone();
        let made = self.corrugator.step(dt_s);
        self.finishing.deliver(&order, made.good_metres);
        if let Some(order) = &made.new_order {
            self.finishing.deliver(order, 0.0);
        }
        self.slitter.step(&self.corrugator, dt_s);
        let finished = self.finishing.step(dt_s);
        self.report_power(now_ms, &mut reports);
        self.report_telemetry(now_ms, &mut reports);
        self.report_counters(now_ms, made.new_order.is_some(), &mut reports);
        if now_ms == STEP_MS {
            for device in [Device::Corrugator, Device::Flexo, Device::Stacker] {
                reports.push(Report::Alarm(device, AlarmNotice::NONE));
            }
        }
        let alarms = |device, notices: Vec<AlarmNotice>| {
            notices.into_iter().map(move |notice| Report::Alarm(device, notice))
        };
        reports.extend(alarms(Device::Corrugator, made.alarms));
        reports.extend(alarms(Device::Flexo, finished.printer_alarms));
        reports.extend(alarms(Device::Stacker, finished.stacker_alarms.into_iter().collect()));
        reports
    }

    fn report_power(&mut self, now_ms: u64, reports: &mut Vec<Report>) {
        let finishing = &self.finishing;
        let on = [
            self.corrugator.on(),
            self.slitter.on(),
            finishing.printer.on(),
            finishing.cutter.on(),
            finishing.stacker.on(),
        ];
        for ((device, on), said) in Device::ALL.into_iter().zip(on).zip(&mut self.power) {
            if *said != Some(on) || now_ms.is_multiple_of(POWER_REPEAT_MS) {
                *said = Some(on);
                reports.push(Report::Power(device, on));
            }
        }
    }

    fn report_telemetry(&self, now_ms: u64, reports: &mut Vec<Report>) {
        for device in Device::ALL {
            if now_ms % telemetry_period_ms(device) != phase_ms(device) {
                continue;
            }
            let values = match device {
                Device::Corrugator => self.corrugator.telemetry(),
                Device::Slitter => self.slitter.telemetry(),
                Device::Flexo => self.finishing.printer.telemetry(),
                Device::DieCutter => self.finishing.cutter.telemetry(),
                Device::Stacker => self.finishing.stacker.telemetry(),
            };
            reports.push(Report::Telemetry(device, values));
        }
    }

    fn report_counters(&self, now_ms: u64, new_order: bool, reports: &mut Vec<Report>) {
        if new_order || now_ms % COUNTERS_PERIOD_MS == 400 {
            let (good, total) = self.corrugator.counts();
            reports.push(Report::Counters { order: self.corrugator.order().name(), good, total });
        }
        if now_ms % COUNTERS_PERIOD_MS == 900 {
            let finishing = &self.finishing;
            let order = finishing.order().name();
            let counts = [
                (Device::Flexo, finishing.printer.count()),
                (Device::DieCutter, finishing.cutter.count()),
                (Device::Stacker, finishing.stacker.count()),
            ];
            let reading = |(device, count): (Device, super::count::Count)| {
                let (good, total) = count.pieces();
                (device, order.clone(), good, total)
            };
            reports.push(Report::Mes(counts.map(reading).to_vec()));
        }
    }

    /// Returns the channel of a report; `None` for the MES, which reports for several devices.
    pub(crate) const fn channel(report: &Report) -> Option<(Device, Channel)> {
        match report {
            Report::Telemetry(device, _) => Some((*device, Channel::Telemetry)),
            Report::Power(device, _) => Some((*device, Channel::Power)),
            Report::Counters { .. } => Some((Device::Corrugator, Channel::Counters)),
            Report::Alarm(device, _) => Some((*device, Channel::Alarms)),
            Report::Mes(_) => None,
        }
    }
}
