//! Several members in one thread, with a message pump between them.

mod net;

mod rules;

mod chaos;
