//! How does a reducer run?
