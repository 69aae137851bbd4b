//! Bytes as pages and pages as bytes.

use super::layout::{PAGE, Page, PageBytes};

/// Looks at bytes as a page, in place.
#[inline(always)]
pub fn page_ref(bytes: &PageBytes) -> &Page {
    // SAFETY: the root of the archive is at offset 0, since `Page` is as long as the slice. It
    // has alignment 1 and consists of integers and bytes only, so any bytes are a valid `Page`.
    unsafe { rkyv::access_unchecked::<Page>(bytes) }
}

/// As [`page_ref`], for changing.
#[inline(always)]
pub fn page_mut(bytes: &mut PageBytes) -> &mut Page {
    // SAFETY: as in `page_ref`; any bytes written through the page are valid bytes.
    unsafe { &mut *bytes.as_mut_ptr().cast::<Page>() }
}

/// The bytes of a page.
#[inline(always)]
pub fn as_bytes(page: &Page) -> &PageBytes {
    const { assert!(size_of::<Page>() == PAGE) }
    // SAFETY: `Page` is `repr(C)`, exactly as long as the array, and has no padding, since all its
    // fields have alignment 1.
    unsafe { &*std::ptr::from_ref(page).cast::<PageBytes>() }
}

/// Has the processor fetch the line of memory at `at`, which need not be anything at all.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint; no address makes it fault or change anything.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}
