//! Writes archives by hand, in the layout that `rkyv::to_bytes` gives them.

#![forbid(unsafe_code)]

/// One struct of an archive, `N` bytes, while it is appended to the output. Fields are given in
/// order; a vector's field points back at bytes already written.
pub(super) struct Root<'o, const N: usize> {
    out: &'o mut Vec<u8>,
    end: usize,
}

impl<'o, const N: usize> Root<'o, N> {
    /// A struct at the end of `out`.
    #[inline]
    pub fn at_end_of(out: &'o mut Vec<u8>) -> Self {
        out.reserve(N);
        let end = out.len() + N;
        Root { out, end }
    }

    #[inline]
    fn field<const B: usize>(self, field: [u8; B]) -> Self {
        self.out.extend_from_slice(&field);
        self
    }

    /// A vector whose `len` elements begin at `target` of the output, before this struct.
    /// Bodies are bounded far below 2 GiB where the frame is closed; until then a longer one
    /// only wraps here.
    #[inline]
    pub fn vec(self, target: usize, len: usize) -> Self {
        let back = self.out.len().wrapping_sub(target) as u32;
        // Both numbers in one store.
        let field = u64::from(back.wrapping_neg()) | u64::from(len as u32) << 32;
        self.u64(field)
    }

    #[inline]
    pub fn i64(self, number: i64) -> Self {
        self.field(number.to_le_bytes())
    }

    #[inline]
    pub fn u64(self, number: u64) -> Self {
        self.field(number.to_le_bytes())
    }

    #[inline]
    pub fn u16(self, number: u16) -> Self {
        self.field(number.to_le_bytes())
    }

    #[inline]
    pub fn u8(self, number: u8) -> Self {
        self.field([number])
    }

    /// Ends the struct.
    #[inline]
    pub fn done(self) {
        debug_assert_eq!(self.out.len(), self.end, "every field is given");
    }
}
