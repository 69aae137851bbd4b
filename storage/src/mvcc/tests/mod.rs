//! The engine against plain models.
