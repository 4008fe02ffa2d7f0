//! Prints the outcome of each object as a line on standard output.

use std::io::{self, Write};

use serde::Serialize;

use crate::finding::{Finding, Outcomes};
use crate::object::{Kind, ObjectRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `Device/corrugator-1 Refused DuplicateDeviceCode: spec.deviceCode: …`.
    Text,
    /// One JSON object on each line.
    Json,
}

#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    printed: Outcomes,
}

#[derive(Serialize)]
struct Line<'a> {
    object: String,
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    verdict: &'static str,
    findings: &'a [Finding],
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, printed: Outcomes::default() }
    }

    /// Prints the outcomes that changed, one to a line. An object that is gone is `Removed`; a file that is
    /// valid again is `Accepted`.
    pub(crate) fn print(&mut self, outcomes: Outcomes, out: &mut dyn Write) -> io::Result<()> {
        for (object, _) in self.printed.iter().filter(|(object, _)| outcomes.get(object).is_none()) {
            let word = if object.kind == Kind::File { "Accepted" } else { "Removed" };
            self.write(out, object, word, &[])?;
        }
        for (object, outcome) in
            outcomes.iter().filter(|(object, outcome)| self.printed.get(object) != Some(outcome))
        {
            self.write(out, object, outcome.word(), outcome.findings())?;
        }
        self.printed = outcomes;
        out.flush()
    }

    fn write(
        &self,
        out: &mut dyn Write,
        object: &ObjectRef,
        verdict: &'static str,
        findings: &[Finding],
    ) -> io::Result<()> {
        match self.format {
            Format::Text => {
                let findings: Vec<String> =
                    findings.iter().map(|finding| one_line(&finding.to_string())).collect();
                let line = format!("{object} {verdict} {}", findings.join("; "));
                writeln!(out, "{}", line.trim_end())
            }
            Format::Json => {
                let ObjectRef { kind, namespace, name } = object;
                let line =
                    Line { object: object.to_string(), kind: *kind, namespace, name, verdict, findings };
                serde_json::to_writer(&mut *out, &line)?;
                writeln!(out)
            }
        }
    }
}

/// Replaces control characters: a line break in a user's value must not begin a line of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Reason;

    fn say(printer: &mut Printer, outcomes: &Outcomes) -> String {
        let mut out = Vec::new();
        printer.print(outcomes.clone(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_changes_are_printed() {
        let mut printer = Printer::new(Format::Text);
        let device = ObjectRef::new(Kind::Device, "default", "d1");
        let mut outcomes = Outcomes::default();
        outcomes.accept(&device);
        assert_eq!(say(&mut printer, &outcomes), "Device/d1 Accepted\n");
        assert_eq!(say(&mut printer, &outcomes), "");
        outcomes.degrade(
            &device,
            Finding::new(Reason::FormatMissing, "spec.channels[0].format", "no\nsuch format"),
        );
        assert_eq!(
            say(&mut printer, &outcomes),
            "Device/d1 Degraded FormatMissing: spec.channels[0].format: no such format\n"
        );
        assert_eq!(say(&mut printer, &Outcomes::default()), "Device/d1 Removed\n");
    }

    #[test]
    fn json_is_one_object_on_each_line() {
        let mut printer = Printer::new(Format::Json);
        let mut outcomes = Outcomes::default();
        outcomes.refuse(
            &ObjectRef::new(Kind::Device, "default", "d1"),
            Finding::new(Reason::QuotaExceeded, "", "full"),
        );
        let line: serde_json::Value = serde_json::from_str(say(&mut printer, &outcomes).trim()).unwrap();
        assert_eq!(line["verdict"], "Refused");
        assert_eq!(line["findings"][0]["reason"], "QuotaExceeded");
    }
}
