//! Small integer names of the configured things. The configuration resolves names to these once; the data plane
//! never looks at a string.

/// Which listener of the snapshot, counted from 0 in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// Which pool of the snapshot, counted from 0 in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// Which backend of the snapshot, counted from 0 over all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// Which data-plane worker, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

impl ListenerId {
    /// The position in a table of all listeners.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl PoolId {
    /// The position in a table of all pools.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl BackendId {
    /// The position in a table of all backends.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl WorkerId {
    /// The position in a table of all workers.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
