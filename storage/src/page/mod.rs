//! Pages: fixed-size rkyv archives, read in place.
