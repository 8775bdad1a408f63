//! The `darkroom` command.

fn main() -> std::process::ExitCode {
    darkroom::cli::main()
}
