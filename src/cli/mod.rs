//! cli
/// main
pub fn main() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
pub mod style; pub mod times;
