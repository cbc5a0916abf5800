//! Attach stream (being written).
