//! How the C library's allocator treats what the proxy frees: kept between bursts, given back when they are over.

/// Freed memory at the top of a heap that is kept for the next message, in bytes.
const KEPT_BYTES: libc::c_int = 4 * 1024 * 1024;
/// Blocks from this size on are the kernel's each time, in bytes.
const MAPPED_BYTES: libc::c_int = 1024 * 1024;

/// Keeps what bulk transfers free and ask for again. By default each buffer of 128 KiB goes back to the kernel at once, and the
/// page faults of the next one were a fifth of the CPU time of a bulk transfer. To be called before the first thread starts.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_TRIM_THRESHOLD, KEPT_BYTES), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES)] {
        // SAFETY: mallopt takes two integers and changes limits of the allocator, which it may do at any time.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}

/// Gives free memory back to the kernel: for times when nothing happens.
pub fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only memory that nobody holds.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
