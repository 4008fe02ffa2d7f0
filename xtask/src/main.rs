//! `cargo xtask`: see `make help` for the usual ways to call it.

use clap::{Parser, Subcommand};
use flutecast_xtask::charts::{self, SchemaArgs};
use flutecast_xtask::images::{self, ImageArgs};

mod test_tools;

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Builds and writes files of this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the programs and writes OCI archives of them, which containerd, docker, podman and kind load
    Images(ImageArgs),
    /// Writes the generated files in charts/, and docs/generated/chart-values.md
    Charts,
    /// Writes the schemas that rendered charts are checked against
    ChartSchemas(SchemaArgs),
    /// Builds the Go programs that tests run, once per machine
    TestTools {
        /// Builds only these programs and prints their paths
        names: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Images(args) => images::run(args),
        Command::Charts => charts::write(),
        Command::ChartSchemas(args) => charts::write_schemas(&args),
        Command::TestTools { names } => test_tools::run(&names),
    }
}
