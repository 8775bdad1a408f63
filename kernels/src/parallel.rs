//! Spreading work over threads, and the slice that several tasks write at once.

use std::marker::PhantomData;

use rayon::prelude::*;

/// Work below this many floating-point operations stays on the calling thread: waking others would
/// take longer.
const PARALLEL_FLOPS: usize = 2_000_000;

/// Whether work of so many floating-point operations is worth spreading.
pub(crate) fn worthwhile(flops: usize) -> bool {
    flops >= PARALLEL_FLOPS && rayon::current_num_threads() > 1
}

/// Calls `task` with 0, 1, ... `count - 1`: on all threads, in any order, if `parallel`.
pub(crate) fn for_each(parallel: bool, count: usize, task: impl Fn(usize) + Sync + Send) {
    if parallel && count > 1 {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..count).for_each(task);
    }
}

/// Calls `task` with each of `items`: on all threads, in any order, if `parallel`.
pub(crate) fn for_each_of<T: Send>(parallel: bool, items: Vec<T>, task: impl Fn(T) + Sync + Send) {
    if parallel && items.len() > 1 {
        items.into_par_iter().for_each(task);
    } else {
        items.into_iter().for_each(task);
    }
}

/// Calls `task` with the index and content of each chunk of `size` numbers of `data`; the last may
/// be shorter.
pub(crate) fn for_each_chunk(
    parallel: bool,
    data: &mut [f32],
    size: usize,
    task: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let size = size.max(1);
    if parallel && data.len() > size {
        data.par_chunks_mut(size).enumerate().with_max_len(1).for_each(|(i, c)| task(i, c));
    } else {
        data.chunks_mut(size).enumerate().for_each(|(i, c)| task(i, c));
    }
}

/// A mutable slice of which several tasks each write their own parts: rectangles of a matrix, which
/// no splitting of slices can express.
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Shared` is an exclusive borrow of floats, which may move to other threads; access to
// them goes through `Shared::part`, whose callers keep parts apart.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// The `len` numbers from `start` on.
    ///
    /// # Safety
    ///
    /// No other part that shares a number with this one may be alive at the same time.
    #[expect(clippy::mut_from_ref, reason = "the caller promises what `&mut self` would")]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "a part inside the slice");
        // SAFETY: the range was checked against the slice that `self` borrows exclusively, and the
        // caller promises that nobody else holds any of it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
