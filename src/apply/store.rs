//! What the applier asks of the writer of a tree file: the tree itself, or a model in tests.

use quoin_storage::tree::{TreeError, TreeWrite, Txn, Writer};

/// The one writer of a tree.
pub trait Store {
    /// A transaction in progress. Dropped without a commit it changes nothing.
    type Txn<'s>: StoreTxn
    where
        Self: 's;

    /// Begins a transaction.
    fn begin(&mut self) -> Self::Txn<'_>;

    /// What the last commit said about the trees; empty at first.
    fn user(&self) -> &[u8];
}

/// A transaction of a [`Store`].
pub trait StoreTxn: TreeWrite + Sized {
    /// Publishes the transaction, with `user` beside it.
    fn commit(self, user: &[u8]) -> Result<(), TreeError>;
}

impl Store for Writer {
    type Txn<'s> = Txn<'s>;

    fn begin(&mut self) -> Txn<'_> {
        let mut txn = Writer::begin(self);
        // Whether there is room was decided before the log; see `Applier`.
        txn.use_reserve();
        txn
    }

    fn user(&self) -> &[u8] {
        Writer::user(self)
    }
}

impl StoreTxn for Txn<'_> {
    fn commit(self, user: &[u8]) -> Result<(), TreeError> {
        Txn::commit(self, user);
        Ok(())
    }
}
