//! birth
