//! What is a world made of?
