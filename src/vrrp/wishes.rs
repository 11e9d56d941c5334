//! What is wanted of the kernel for the addresses of one virtual router: one change at a time is under way, and one
//! that has not been begun is overtaken by the next. So what waits for a kernel that is slow never grows. Pure.

/// A change of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// All of them are on the interface, for a lease from now on.
    Hold {
        /// For which term as Active.
        term: u32,
    },
    /// None is.
    Remove,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    under_way: Option<Wish>,
    next: Option<Wish>,
}

impl Wishes {
    /// Instead of what was wanted before.
    pub fn want(&mut self, wish: Wish) {
        self.next = Some(wish);
    }

    /// What is to be begun now, if anything; it counts as begun.
    pub fn begin(&mut self) -> Option<Wish> {
        if self.under_way.is_some() {
            return None;
        }
        self.under_way = self.next.take();
        self.under_way
    }

    /// What was begun is over.
    pub fn done(&mut self) {
        self.under_way = None;
    }

    /// Nothing is wanted that is not so.
    #[must_use]
    pub fn are_fulfilled(&self) -> bool {
        self.under_way.is_none() && self.next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_begun_is_overtaken() {
        let mut wishes = Wishes::default();
        assert!(wishes.are_fulfilled());
        wishes.want(Wish::Hold { term: 1 });
        assert_eq!(wishes.begin(), Some(Wish::Hold { term: 1 }));
        wishes.want(Wish::Remove);
        wishes.want(Wish::Hold { term: 2 });
        assert_eq!(wishes.begin(), None, "one at a time");
        wishes.done();
        assert!(!wishes.are_fulfilled());
        assert_eq!(wishes.begin(), Some(Wish::Hold { term: 2 }));
        wishes.done();
        assert_eq!(wishes.begin(), None);
        assert!(wishes.are_fulfilled());
    }
}
