//! The devices of the line and their channels.

use flutecast_contract::name::{ChannelName, DeviceCode, InvalidName};

/// One machine of the line.
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
    /// All of them, in the direction of the board.
    pub const ALL: [Self; 5] = [Self::Corrugator, Self::Slitter, Self::Flexo, Self::DieCutter, Self::Stacker];

    /// The device code, as written.
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

    /// The device code as a name.
    ///
    /// # Errors
    /// None for the codes above; the type of the contract asks for it.
    pub fn device_code(self) -> Result<DeviceCode, InvalidName> {
        DeviceCode::new(self.code())
    }
}

/// One kind of messages of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Measured values; only the newest matters.
    Telemetry,
    /// Drives energised or not.
    Power,
    /// Progress of the order.
    Counters,
    /// Alarms raised and cleared.
    Alarms,
}

impl Channel {
    /// The channel's name, as written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Power => "power",
            Self::Counters => "counters",
            Self::Alarms => "alarms",
        }
    }

    /// The channel's name as the contract's type.
    ///
    /// # Errors
    /// None for the names above; the type of the contract asks for it.
    pub fn channel_name(self) -> Result<ChannelName, InvalidName> {
        ChannelName::new(self.as_str())
    }
}
