//! The finishing line behind the corrugator: a buffer of sheets, then printer, die cutter and stacker in one
//! line.

use std::collections::VecDeque;

use super::alarm::AlarmNotice;
use super::die_cutter::DieCutter;
use super::drive::Demand;
use super::order::Order;
use super::physics::{Countdown, Noise, between, noise};
use super::printer::{Printer, PrinterTask};
use super::stacker::Stacker;

/// Capacity of the buffer in sheets; more go to other machines.
const BUFFER_SHEETS: f64 = 450.0;
/// Sheets that the corrugator makes for this line while the printer could print one; the rest goes to
/// other machines. Less than one: the printer has to catch up on what set-ups and jams cost it.
const OWN_SHARE: f64 = 0.82;
/// The printer waits below this number of sheets…
const WAIT_BELOW: f64 = 4.0;
/// …and goes on above this one.
const GO_ON_ABOVE: f64 = 30.0;

/// Sheets of one order in the buffer.
#[derive(Debug, Clone)]
struct Lot {
    order: Order,
    sheets: f64,
}

/// The result of a step.
#[derive(Debug, Default)]
pub(crate) struct FinishingStep {
    /// The printer's alarms that came or went.
    pub(crate) printer_alarms: Vec<AlarmNotice>,
    /// The stacker's.
    pub(crate) stacker_alarms: Option<AlarmNotice>,
}

/// The three machines and the buffer before them.
#[derive(Debug, Clone)]
pub(crate) struct Finishing {
    noise: Noise,
    /// The lot in work, then those that wait.
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

    /// The order that the three machines work on.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    /// Takes what the corrugator made of `order`.
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
            // Sheets that leave the machine during set-up are not counted.
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

    /// Ends an order whose sheets are used up, once the corrugator has gone on to another.
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

    /// The sheets of the lot in work.
    fn stock(&self) -> f64 {
        self.lots.front().map_or(0.0, |lot| lot.sheets)
    }
}
