//! How does a world go on?
