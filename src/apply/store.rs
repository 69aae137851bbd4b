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
    /// Whether new data may be written. If not, what is left is held in reserve for deletes,
    /// compaction and checkpoints. Must be cheap: it is asked before every command.
    fn has_room(&self) -> bool;

    /// Publishes the transaction, with `user` beside it.
    fn commit(self, user: &[u8]) -> Result<(), TreeError>;
}

impl Store for Writer {
    type Txn<'s> = Txn<'s>;

    fn begin(&mut self) -> Txn<'_> {
        let mut txn = Writer::begin(self);
        // Whoever would add data asks for room first; what is left may use the reserve.
        txn.use_reserve();
        txn
    }

    fn user(&self) -> &[u8] {
        Writer::user(self)
    }
}

impl StoreTxn for Txn<'_> {
    /// Always: after a crash the log is applied again, perhaps on a disk that has room where it
    /// had none, and must come to the same outcomes. Whether there is room is decided once,
    /// before a command enters the log (see `node::order`), and what has entered it lives on the
    /// reserve.
    fn has_room(&self) -> bool {
        true
    }

    fn commit(self, user: &[u8]) -> Result<(), TreeError> {
        Txn::commit(self, user);
        Ok(())
    }
}
