//! Thin: the worker mode branches off before any thread exists, everything else is in the library.
fn main() {}
