//! Reads the messages missed on a subject, and proves whether they are complete.

use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_nats::{RequestError, StoredMessage, StreamReader};

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
/// are deleted or purged by hand are not covered.
#[derive(Debug)]
pub(crate) struct HistoryReader<'a> {
    reader: &'a StreamReader,
    subject: &'a str,
    after: Sequence,
    next: Sequence,
    found: u64,
    pending: u64,
    done: bool,
}

impl<'a> HistoryReader<'a> {
    pub(crate) fn new(reader: &'a StreamReader, subject: &'a str, after: Sequence) -> Self {
        Self { reader, subject, after, next: after.next(), found: 0, pending: 0, done: false }
    }

    /// Returns the next messages in stream order within 5 s, or `None` if there are no more. After an error
    /// the same page can be requested again.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<StoredMessage>>, RequestError> {
        if self.done {
            return Ok(None);
        }
        let page = self.reader.page(self.subject, self.next).await?;
        self.found += page.messages.len() as u64;
        self.pending = page.pending;
        self.done = page.pending == 0 || page.messages.is_empty();
        let Some(last) = page.messages.last() else { return Ok(None) };
        self.next = last.sequence.next();
        Ok(Some(page.messages))
    }

    /// Returns within 10 s whether what is stored now is everything that was ever stored since. Call it after
    /// the last page that is wanted.
    pub(crate) async fn completeness(&self) -> Result<Completeness, RequestError> {
        let state = self.reader.state().await?;
        let nothing_taken = state.first_sequence <= self.after.next()
            && state.max_per_subject.is_none_or(|max| self.found + self.pending < max);
        let complete = nothing_taken
            || self.reader.first_of(self.subject).await?.is_some_and(|first| first <= self.after);
        Ok(Completeness { complete, epoch: state.epoch })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completeness {
    pub(crate) complete: bool,
    /// The incarnation of the stream for which this holds.
    pub(crate) epoch: Epoch,
}
