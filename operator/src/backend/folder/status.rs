//! The last step of a reconcile: tells what became of each object. In folder mode that is a line on standard
//! output.

use std::io::{self, Write};

use serde::Serialize;

use crate::controller::build::Built;
use crate::jetstream::task::{Report, TenantReport};
use crate::object::{Kind, ObjectRef};
use crate::finding::{Finding, Outcome, Outcomes};

/// How verdicts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: `Device/corrugator-1 Refused DuplicateDeviceCode: spec.deviceCode: …`.
    Text,
    /// One JSON object on each line.
    Json,
}

/// Puts together what the build step, the folder and JetStream say about the objects.
#[must_use]
pub fn verdicts(built: &Built, folder: &Outcomes, report: &Report) -> Outcomes {
    let mut verdicts = built.verdicts.clone();
    for (object, outcome) in folder.iter() {
        match outcome {
            Outcome::Accepted => verdicts.accept(object),
            Outcome::Degraded(findings) => {
                findings.iter().for_each(|finding| verdicts.degrade(object, finding.clone()))
            }
            Outcome::Refused(findings) => {
                findings.iter().for_each(|finding| verdicts.refuse(object, finding.clone()))
            }
        }
    }
    for (tenant, built) in &built.tenants {
        let owner = &built.streams.owner;
        let object = ObjectRef::new(Kind::Tenant, &owner.namespace, &owner.name);
        let Some(TenantReport { findings, foreign, has_stream: _, applied: _ }) = report.get(tenant) else {
            continue;
        };
        for finding in findings {
            if *foreign {
                verdicts.refuse(&object, finding.clone());
            } else {
                verdicts.degrade(&object, finding.clone());
            }
        }
    }
    verdicts
}

/// What was said last, so that only changes are said.
#[derive(Debug)]
pub struct Board {
    format: Format,
    said: Outcomes,
}

/// One verdict as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    object: String,
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    verdict: &'static str,
    findings: &'a [Finding],
}

impl Board {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, said: Outcomes::default() }
    }

    /// Writes the verdicts that changed, one to a line. An object that went is `Removed`; a file that has
    /// healed is `Accepted`.
    ///
    /// # Errors
    /// When `out` can't be written to.
    pub fn say(&mut self, verdicts: Outcomes, out: &mut dyn Write) -> io::Result<()> {
        for (object, _) in self.said.iter().filter(|(object, _)| verdicts.get(object).is_none()) {
            let word = if object.kind == Kind::File { "Accepted" } else { "Removed" };
            self.write(out, object, word, &[])?;
        }
        for (object, outcome) in
            verdicts.iter().filter(|(object, outcome)| self.said.get(object) != Some(outcome))
        {
            self.write(out, object, outcome.word(), outcome.findings())?;
        }
        self.said = verdicts;
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

/// Values in messages come from users; a line break or a control character in one must not make a line of its
/// own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Reason;

    fn say(board: &mut Board, verdicts: &Outcomes) -> String {
        let mut out = Vec::new();
        board.say(verdicts.clone(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_changes_are_said() {
        let mut board = Board::new(Format::Text);
        let device = ObjectRef::new(Kind::Device, "default", "d1");
        let mut verdicts = Outcomes::default();
        verdicts.accept(&device);
        assert_eq!(say(&mut board, &verdicts), "Device/d1 Accepted\n");
        assert_eq!(say(&mut board, &verdicts), "");
        verdicts.degrade(
            &device,
            Finding::new(Reason::FormatMissing, "spec.channels[0].format", "no\nsuch format"),
        );
        assert_eq!(
            say(&mut board, &verdicts),
            "Device/d1 Degraded FormatMissing: spec.channels[0].format: no such format\n"
        );
        assert_eq!(say(&mut board, &Outcomes::default()), "Device/d1 Removed\n");
    }

    #[test]
    fn json_is_one_object_on_each_line() {
        let mut board = Board::new(Format::Json);
        let mut verdicts = Outcomes::default();
        verdicts.refuse(
            &ObjectRef::new(Kind::Device, "default", "d1"),
            Finding::new(Reason::QuotaExceeded, "", "full"),
        );
        let line: serde_json::Value = serde_json::from_str(say(&mut board, &verdicts).trim()).unwrap();
        assert_eq!(line["verdict"], "Refused");
        assert_eq!(line["findings"][0]["reason"], "QuotaExceeded");
    }
}
