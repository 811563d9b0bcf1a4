//! The command line. See `flyball --help`.

fn main() -> std::process::ExitCode {
    flyball::cli::main()
}
