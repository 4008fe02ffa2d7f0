//! What was missed on a subject, and whether it is all of it.

use super::message::StoredMessage;
use super::stored::{ReadError, StreamReader};
use flutecast_contract::stream_position::Epoch;

/// Reads everything that is stored on `subject` after a sequence, page by page, and says at the end whether
/// that is everything that was ever stored there since.
///
/// # The proof
/// Let `R` be the sequence after which is read, `n` the number of messages found and still to be found, and
/// `M` the stream's limit per subject. A message after `R` can be gone in three ways: by age or by the
/// stream's size, which take the oldest of the whole stream first; or by `M`, which takes the oldest of the
/// subject first and only when `M` newer ones are stored. So nothing after `R` is gone if
///
/// 1. a message at or before `R` is still stored on the subject, as it would have gone first; or
/// 2. the stream's first sequence is at most `R + 1`, so that neither age nor size took anything after `R`,
///    and `n < M`, so that `M` took nothing either (had it taken one, the `M` newer ones would all have been
///    counted).
///
/// Both are looked up after the messages were read: what was not gone then was not gone before. Messages that
/// somebody deletes or purges by hand are not covered.
#[derive(Debug)]
pub(crate) struct HistoryReader<'a> {
    reader: &'a StreamReader,
    subject: &'a str,
    after: u64,
    next: u64,
    found: u64,
    pending: u64,
    done: bool,
}

impl<'a> HistoryReader<'a> {
    /// Reads what comes after the sequence `after`.
    #[must_use]
    pub(crate) fn new(reader: &'a StreamReader, subject: &'a str, after: u64) -> Self {
        Self { reader, subject, after, next: after.saturating_add(1), found: 0, pending: 0, done: false }
    }

    /// The next messages in stream order; `None`: there are no more.
    ///
    /// # Errors
    /// [`ReadError`], within 5 s; the same page can be asked for again.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<StoredMessage>>, ReadError> {
        if self.done {
            return Ok(None);
        }
        let page = self.reader.page(self.subject, self.next).await?;
        self.found += page.messages.len() as u64;
        match page.messages.last() {
            Some(last) => self.next = last.sequence.saturating_add(1),
            None => self.done = true,
        }
        self.pending = page.pending;
        self.done |= page.pending == 0;
        Ok(if page.messages.is_empty() { None } else { Some(page.messages) })
    }

    /// Whether what is stored now is everything that was ever stored since. Ask after the last page that is
    /// wanted.
    ///
    /// # Errors
    /// [`ReadError`], within 10 s.
    pub(crate) async fn completeness(&self) -> Result<Completeness, ReadError> {
        let info = self.reader.info().await?;
        let nothing_taken = info.first_sequence <= self.after.saturating_add(1)
            && info.max_per_subject.is_none_or(|max| self.found + self.pending < max);
        let complete = if nothing_taken {
            true
        } else {
            let first = self.reader.first_of(self.subject).await?;
            first.is_some_and(|first| first <= self.after)
        };
        Ok(Completeness { complete, epoch: info.epoch })
    }
}

/// Whether a history is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completeness {
    /// Whether it is.
    pub complete: bool,
    /// Of which incarnation of the stream.
    pub epoch: Epoch,
}
