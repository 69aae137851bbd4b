//! The watch core over a real tree, on a simulated disk.

mod memory;

mod model;

mod small;

mod store;
