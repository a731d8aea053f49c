//! The turns of those who want addresses from this host's ledger: a commit costs two syncs, whoever's requests are in it.

use std::time::Instant;

use super::{Ledger, LedgerError};
use crate::codec::WaitingRequest;
use crate::host::HostFacts;
use crate::ledger::{
    Access, LedgerFile, LedgerFileError, OpenOptions, StorageError, Turn, deadline_after, with_suffix,
};
use crate::operations::{Allocate, AllocateError, Allocated};
use crate::waiting::{Asked, Posted, Waited};

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger to allocate for one request. While others have it, the request waits where they see it, and one
    /// of them may carry it out.
    ///
    /// ```
    /// # use whereabouts_engine::{Allocate, Attachment, HostFacts, Ledger, Network, OpenOptions, Owner, Pool, Sharing};
    /// # use whereabouts_engine::{View, ViewSpec, Waited, Want};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let range = "10.0.0.0/24".parse()?;
    /// # let view = View::new(&ViewSpec::new(range))?.into();
    /// # let want = Want { pool: Pool::new(Network::unnamed(), range), sharing: Sharing::Shared, view, exactly: None };
    /// # let request =
    /// #     Allocate { attachment: Attachment::named("web"), owner: Owner::Named("web".into()), wants: vec![want] };
    /// let options = OpenOptions::new(folder.path().join("ledger.redb"));
    /// let allocated = match Ledger::open_to_allocate(&options, HostFacts::read(), &request)? {
    ///     Waited::Served(allocated) => allocated,
    ///     Waited::Turn(ledger) => ledger.allocate_for_all(&request)??,
    /// };
    /// assert_eq!(allocated[0].address.to_string(), "10.0.0.1");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LedgerError`] names the file and the cure.
    pub fn open_to_allocate(
        options: &OpenOptions,
        facts: HostFacts,
        request: &Allocate,
    ) -> Result<Waited<Box<Self>>, LedgerError> {
        let deadline = deadline_after(options.wait);
        let turn = match Turn::take(options, Instant::now()) {
            Err(LedgerFileError::Busy { .. }) if options.access == Access::Write => {
                let waiting = WaitingRequest { facts: facts.clone(), store: "".into(), request: request.clone() };
                let posted = Posted::leave(&with_suffix(&options.path, ".waiting"), &waiting);
                let turn = Turn::take(options, deadline)?;
                if let Some(allocated) = posted.and_then(Posted::take_answer) {
                    return Ok(Waited::Served(allocated));
                }
                turn
            }
            turn => turn?,
        };
        let file = LedgerFile::open_in_turn(options, turn, deadline)?;
        Ok(Waited::Turn(Box::new(Self::carry_out_on(file, options, facts)?)))
    }

    /// Gives a request its addresses, and those who wait for the ledger theirs, in one commit.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used; then nobody got anything.
    pub fn allocate_for_all(&self, request: &Allocate) -> Result<Result<Vec<Allocated>, AllocateError>, LedgerError> {
        let folder = with_suffix(self.file.path(), ".waiting");
        let asked = Asked::in_folder(&folder, |waiting| waiting.facts == self.facts);
        let (requests, is_waited_for) = (asked.after(request), |at: usize| asked.is_waited_for(at));
        let carried_out = self.write(
            async |host| host.allocate_for_all(&requests, &is_waited_for).await,
            |answers| answers.iter().any(Result::is_ok),
        );
        let answers = match carried_out {
            // What is odd about another's request must not cost this one its addresses.
            Err(LedgerError::Storage(error)) if !asked.is_empty() && !self.file.has_io_failure() => {
                tracing::warn!(%error, "not carried out for those who wait");
                self.allocate(std::slice::from_ref(request))?
            }
            answers => answers?,
        };
        asked.deliver(answers).ok_or_else(|| StorageError::io("an allocation without an answer").into())
    }
}
