//! Walking over all that an owner has, one picture in memory at a time.

use super::{Class, Cursor, Head, Query, Store, StoreError};
use crate::domain::OwnerId;
use std::collections::VecDeque;

/// Entries that are listed at once; only one of them is held with its content.
const PAGE: usize = 256;

/// One entry of an export.
#[derive(Debug)]
pub struct Exported {
    /// What is known of it without opening it.
    pub head: Head,
    /// Its record and content; a picture whose file is lost or damaged says so here, and the export
    /// goes on behind it.
    pub parts: Result<Parts, StoreError>,
}

/// What an entry holds.
pub struct Parts {
    /// Its record.
    pub record: Vec<u8>,
    /// Its content, if its class has one.
    pub content: Option<Vec<u8>>,
}

impl std::fmt::Debug for Parts {
    /// Without the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = self.content.as_ref().map(Vec::len);
        write!(f, "Parts({} + {content:?} bytes)", self.record.len())
    }
}

/// All entries of a class, newest first. What is written meanwhile may be missing; what is deleted
/// before its turn comes is.
#[derive(Debug)]
pub struct Export<'a> {
    store: &'a dyn Store,
    owner: OwnerId,
    class: Class,
    page: VecDeque<Head>,
    next: Option<Cursor>,
    ended: bool,
}

impl<'a> Export<'a> {
    /// Begins at the newest.
    pub fn new(store: &'a dyn Store, owner: OwnerId, class: Class) -> Self {
        Self { store, owner, class, page: VecDeque::new(), next: None, ended: false }
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let query = Query { after: self.next, ..Query::newest(self.class, PAGE) };
        let page = self.store.list(self.owner, &query)?;
        self.ended = page.next.is_none();
        (self.next, self.page) = (page.next, page.heads.into());
        Ok(())
    }

    fn parts(&self, head: &Head) -> Result<Option<Parts>, StoreError> {
        let at = (self.owner, self.class, head.id);
        let Some(record) = self.store.record(at)? else { return Ok(None) };
        let content = match self.class {
            Class::Picture => self.store.content(self.owner, head.id)?,
            _ => None,
        };
        // Without a content it was deleted after its record was read, or never had one.
        let there = content.is_some() || self.store.head(at)?.is_some();
        Ok(there.then_some(Parts { record, content }))
    }
}

impl Iterator for Export<'_> {
    type Item = Result<Exported, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(head) = self.page.pop_front() else {
                if self.ended {
                    return None;
                }
                if let Err(error) = self.turn() {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            };
            if let Some(parts) = self.parts(&head).transpose() {
                return Some(Ok(Exported { head, parts }));
            }
        }
    }
}
