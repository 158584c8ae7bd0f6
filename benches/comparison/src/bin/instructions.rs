//! Instruction counts: `cargo run --release -p tapvs-bench --bin instructions -- --help`.

fn main() -> std::process::ExitCode {
    tapvs_bench::instructions_main()
}
