//! A wall clock of its own for a program, by libfaketime. Linux has no namespace for wall clocks.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;

/// The wall clock that a program sees. Its monotonic clock stays the machine's, as when a real clock is set.
#[derive(Debug)]
pub struct FakeClock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// Creates a clock that is right.
    ///
    /// # Errors
    /// Returns an error if libfaketime isn't installed.
    pub fn new() -> anyhow::Result<Self> {
        let libraries = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok);
        let mut paths = libraries.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let library =
            paths.find(|path| path.exists()).context("libfaketime is missing: xtask/install-tools system")?;
        let this = Self { folder: tempfile::tempdir()?, library };
        this.set(0)?;
        Ok(this)
    }

    /// Sets the clock to so many seconds ahead of the machine's, or behind it if negative.
    ///
    /// # Errors
    /// Returns an error if the file that the program reads can't be written.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        // In one step, since the file may be read at any time.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(next, self.file())?)
    }

    /// Returns the environment of a program that is to see this clock.
    #[must_use]
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file().into()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("faketime")
    }
}
