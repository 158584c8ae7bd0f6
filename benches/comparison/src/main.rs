//! The comparison benchmark: `cargo run --release -p tapvs-bench -- --help`.

fn main() -> std::process::ExitCode {
    tapvs_bench::main()
}
