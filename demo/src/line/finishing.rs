//! The finishing line after the corrugator: a buffer of sheets, then printer, die cutter and stacker.

use std::collections::VecDeque;

use super::alarm::AlarmNotice;
use super::die_cutter::DieCutter;
use super::drive::Demand;
use super::order::Order;
use super::physics::{Countdown, Noise, between, noise};
use super::printer::{Printer, PrinterTask};
use super::stacker::Stacker;

/// Capacity of the buffer in sheets; the surplus goes to other machines.
const BUFFER_SHEETS: f64 = 450.0;
/// Number of sheets that the corrugator makes for this line per sheet that the printer could print in the
/// same time; the rest goes to other machines. Less than one, so that the printer can catch up after set-ups
/// and jams.
const OWN_SHARE: f64 = 0.82;
/// The printer stops below this number of sheets.
const WAIT_BELOW: f64 = 4.0;
/// The printer starts again above this number of sheets.
const GO_ON_ABOVE: f64 = 30.0;

/// The sheets of one order in the buffer.
#[derive(Debug, Clone)]
struct Lot {
    order: Order,
    sheets: f64,
}

/// The result of a step.
#[derive(Debug, Default)]
pub(crate) struct FinishingStep {
    /// The printer's alarms that were raised or cleared.
    pub(crate) printer_alarms: Vec<AlarmNotice>,
    /// The stacker's alarm that was raised or cleared.
    pub(crate) stacker_alarms: Option<AlarmNotice>,
}

/// The three machines and their buffer.
#[derive(Debug, Clone)]
pub(crate) struct Finishing {
    noise: Noise,
    /// The lot in production, then the waiting lots.
    lots: VecDeque<Lot>,
    order: Order,
    waiting: bool,
    set_up: Countdown,
    pub(crate) printer: Printer,
    pub(crate) cutter: DieCutter,
    pub(crate) stacker: Stacker,
}

impl Finishing {
    pub(crate) fn new(seed: u64, order: &Order) -> Self {
        Self {
            noise: noise(seed, 7),
            lots: VecDeque::from([Lot { order: order.clone(), sheets: 140.0 }]),
            order: order.clone(),
            waiting: false,
            set_up: Countdown::default(),
            printer: Printer::new(seed),
            cutter: DieCutter::new(seed),
            stacker: Stacker::new(seed),
        }
    }

    /// Returns the order in production.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    /// Adds board of `order` from the corrugator to the buffer.
    pub(crate) fn deliver(&mut self, order: &Order, good_metres: f64) {
        let sheets = good_metres * order.print_speed / 60.0 / order.speed * OWN_SHARE;
        let stock: f64 = self.lots.iter().map(|lot| lot.sheets).sum();
        let kept = sheets.min((BUFFER_SHEETS - stock).max(0.0));
        match self.lots.back_mut() {
            Some(lot) if lot.order.number == order.number => lot.sheets += kept,
            _ => self.lots.push_back(Lot { order: order.clone(), sheets: kept }),
        }
    }

    pub(crate) fn step(&mut self, dt_s: f64) -> FinishingStep {
        self.change_order(dt_s);
        let task = self.task();
        let available = match task {
            // Sheets printed during set-up are not counted.
            PrinterTask::SetUp => 0.0,
            PrinterTask::Print(_) | PrinterTask::Wait | PrinterTask::Halt => self.stock(),
        };
        let taken = self.printer.step(task, available, dt_s);
        if let Some(lot) = self.lots.front_mut() {
            lot.sheets -= taken;
        }
        let demand = match (self.stacker.jammed(), self.printer.speed() > 0.0) {
            (true, _) => Demand::EmergencyStop,
            (false, true) => Demand::Run(self.printer.speed() / 60.0),
            (false, false) => Demand::Stop,
        };
        let blanks = self.cutter.step(demand, self.printer.count().good(), dt_s);
        self.stacker.step(blanks, self.order.thickness, !self.cutter.stands(), dt_s);
        FinishingStep { printer_alarms: self.printer.alarms(), stacker_alarms: self.stacker.alarms() }
    }

    /// Ends an order when its sheets are used up and the corrugator has started another order.
    fn change_order(&mut self, dt_s: f64) {
        let was_set_up = self.set_up.runs();
        self.set_up.step(dt_s);
        if was_set_up && !self.set_up.runs() {
            if let Some(lot) = self.lots.front() {
                self.order = lot.order.clone();
            }
            self.printer.start_order();
            self.cutter.start_order();
            self.stacker.start_order();
        }
        if self.stock() <= 0.0 && self.lots.len() > 1 && !self.set_up.runs() {
            self.lots.pop_front();
            self.set_up.set(between(&mut self.noise, (7.0, 10.0)));
        }
        let limit = if self.waiting { GO_ON_ABOVE } else { WAIT_BELOW };
        self.waiting = self.lots.len() <= 1 && self.stock() < limit;
    }

    fn task(&self) -> PrinterTask {
        if self.stacker.jammed() {
            PrinterTask::Halt
        } else if self.set_up.runs() {
            PrinterTask::SetUp
        } else if self.waiting {
            PrinterTask::Wait
        } else {
            PrinterTask::Print(self.order.print_speed)
        }
    }

    /// Returns the sheets of the lot in production.
    fn stock(&self) -> f64 {
        self.lots.front().map_or(0.0, |lot| lot.sheets)
    }
}
