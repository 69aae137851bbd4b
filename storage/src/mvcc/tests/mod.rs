//! The engine against plain models.

mod history;

mod model;

mod real;

mod walk;

mod small;
