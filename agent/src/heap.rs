//! The agent's own heap.

/// Gives memory that was freed back to the kernel, which the C library's allocator does only at the heap's end.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library has no other way to ask for it")]
        // SAFETY: it takes a number and touches no memory that is in use (malloc_trim(3)); thread-safe.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
