//! The devices of the line and their channels.

use flutecast_contract::name::{ChannelName, DeviceCode, InvalidName};

/// A machine of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// CORR-01, which glues paper to board.
    Corrugator,
    /// SLIT-01, which slits and scores the web.
    Slitter,
    /// FLEX-01, which prints the sheets.
    Flexo,
    /// DIE-01, which cuts them to blanks.
    DieCutter,
    /// STACK-01, which piles the blanks.
    Stacker,
}

impl Device {
    /// All devices, in the order in which the board passes them.
    pub const ALL: [Self; 5] = [Self::Corrugator, Self::Slitter, Self::Flexo, Self::DieCutter, Self::Stacker];

    /// Returns the device code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Corrugator => "CORR-01",
            Self::Slitter => "SLIT-01",
            Self::Flexo => "FLEX-01",
            Self::DieCutter => "DIE-01",
            Self::Stacker => "STACK-01",
        }
    }

    /// Returns the device code as the contract's type.
    ///
    /// # Errors
    /// Never, in practice: all codes are valid. The contract's type requires the result.
    pub fn device_code(self) -> Result<DeviceCode, InvalidName> {
        DeviceCode::new(self.code())
    }
}

/// A kind of messages of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Measured values, of which only the newest matters.
    Telemetry,
    /// Whether the drive is on.
    Power,
    Counters,
    Alarms,
}

impl Channel {
    /// Returns the channel's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Power => "power",
            Self::Counters => "counters",
            Self::Alarms => "alarms",
        }
    }

    /// Returns the channel's name as the contract's type.
    ///
    /// # Errors
    /// Never, in practice: all names are valid. The contract's type requires the result.
    pub fn channel_name(self) -> Result<ChannelName, InvalidName> {
        ChannelName::new(self.as_str())
    }
}
