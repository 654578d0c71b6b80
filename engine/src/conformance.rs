//! The suite that every home of the engine passes.
