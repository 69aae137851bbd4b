//! Writes archives by hand, in the layout that `rkyv::to_bytes` gives them.

#![forbid(unsafe_code)]

/// One struct of an archive under construction: `N` bytes that will lie at `position` of the
/// output. Fields are given in order; a vector's field points back at bytes already written.
pub(super) struct Root<const N: usize> {
    bytes: [u8; N],
    filled: usize,
    position: usize,
}

impl<const N: usize> Root<N> {
    /// A struct that will be appended to `out` as it is now.
    #[inline]
    pub fn at_end_of(out: &[u8]) -> Self {
        Root {
            bytes: [0; N],
            filled: 0,
            position: out.len(),
        }
    }

    #[inline]
    fn field<const B: usize>(mut self, field: [u8; B]) -> Self {
        self.bytes[self.filled..self.filled + B].copy_from_slice(&field);
        self.filled += B;
        self
    }

    /// A vector whose `len` elements begin at `target` of the output, before this struct.
    /// Bodies are bounded far below 2 GiB where the frame is closed; until then a longer one
    /// only wraps here.
    #[inline]
    pub fn vec(self, target: usize, len: usize) -> Self {
        let back = (self.position + self.filled).wrapping_sub(target) as u32;
        self.field(back.wrapping_neg().to_le_bytes())
            .field((len as u32).to_le_bytes())
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

    /// Appends the struct to the output.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.filled, N, "every field is given");
        debug_assert_eq!(self.position, out.len(), "nothing came between");
        out.extend_from_slice(&self.bytes);
    }
}
