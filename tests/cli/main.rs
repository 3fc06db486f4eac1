//! The binary as a user runs it, in a cleared environment: what it prints, how it exits, what it leaves on the bus.

mod bad_input;
mod crash;
mod emit;
mod support;
mod work;
