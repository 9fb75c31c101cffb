//! Builds the parts and owns the loop.
