//! How the process's allocator treats the buffers of tensors.

/// Buffers from this size on are the system's own pages, which are given back when they are freed.
/// Mapping one costs as much as writing it once, so small models do not notice.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 4 << 20;

/// Has the allocator give back every large buffer at once. glibc's would, as soon as one of up to 32 MiB
/// was freed, carve the next of its size from a heap with holes: the process then has up to a fifth more
/// memory than there is in its buffers, and predictions of what it needs are wrong by that. Other
/// allocators are left as they are.
pub fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a parameter of the allocator, under the allocator's own lock, and neither
    // allocates nor frees. An allocator that does not know the parameter returns 0.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
