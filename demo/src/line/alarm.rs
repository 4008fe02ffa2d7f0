//! The alarms of the devices, and which of them are active.

use std::collections::BTreeSet;

/// The severity of an alarm, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Production continues.
    Warning,
    /// Production stops.
    Critical,
    /// The cause is gone.
    Cleared,
}

impl Severity {
    /// Returns the word that devices send.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Cleared => "cleared",
        }
    }
}

/// An alarm of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    LowSteam,
    WebBreak,
    RegisterError,
    InkViscosity,
    PileJam,
}

impl Alarm {
    const fn code(self) -> u32 {
        match self {
            Self::LowSteam => 17,
            Self::WebBreak => 21,
            Self::RegisterError => 41,
            Self::InkViscosity => 44,
            Self::PileJam => 61,
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::LowSteam | Self::RegisterError | Self::InkViscosity => Severity::Warning,
            Self::WebBreak | Self::PileJam => Severity::Critical,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::LowSteam => "Low steam pressure, double backer",
            Self::WebBreak => "Web break",
            Self::RegisterError => "Register error too large",
            Self::InkViscosity => "Ink viscosity too high",
            Self::PileJam => "Pile jam",
        }
    }

    /// Returns the notice for an alarm that begins or ends.
    fn notice(self, active: bool) -> AlarmNotice {
        let severity = if active { self.severity() } else { Severity::Cleared };
        AlarmNotice { code: self.code(), severity, text: self.text() }
    }
}

/// An alarm message, without its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmNotice {
    /// The number in the machine's manual; 0 is "no alarm".
    pub code: u32,
    pub severity: Severity,
    /// The readable text.
    pub text: &'static str,
}

impl AlarmNotice {
    /// Sent by a device that connects without an active alarm.
    pub(crate) const NONE: Self = Self { code: 0, severity: Severity::Cleared, text: "No alarm" };
}

#[derive(Debug, Clone, Default)]
pub(crate) struct AlarmPanel {
    active: BTreeSet<u32>,
}

impl AlarmPanel {
    /// Records whether the alarm's cause is present. Returns the message to send if that changed.
    pub(crate) fn update(&mut self, alarm: Alarm, active: bool) -> Option<AlarmNotice> {
        let changed =
            if active { self.active.insert(alarm.code()) } else { self.active.remove(&alarm.code()) };
        changed.then(|| alarm.notice(active))
    }
}
