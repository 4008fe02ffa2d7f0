//! Where the Flutecast programs are.

use std::path::PathBuf;

use anyhow::Context;

/// The path of a program of this workspace (`flutecast-operator`), beside the running test or program in the target folder.
///
/// # Errors
/// When it hasn't been built. `make test` and `make demo` build it first; by hand: `cargo build --bins`.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    // A test runs in target/<profile>/deps, a program in target/<profile>.
    let mut folders = own.ancestors().skip(1).take(2);
    folders
        .find_map(|folder| {
            let path = folder.join(name);
            path.is_file().then_some(path)
        })
        .with_context(|| {
            format!("{name} is not beside {}; build it first: cargo build --bins", own.display())
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_missing_program_says_how_to_build_it() {
        let error = super::program("flutecast-nothing").unwrap_err().to_string();
        assert!(error.contains("cargo build --bins"), "{error}");
    }
}
