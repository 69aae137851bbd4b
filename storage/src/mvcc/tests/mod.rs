//! The engine against plain models.

mod history;

mod model;

mod walk;

mod small;
