//! Embeds the dashboard: writes a table of the files in `dashboard/`, all of which are served.
//!
//! Folders, such as the dashboard's tests, are left out, and so is `package.json`, which is for Node only.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=dashboard");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("dashboard");
    let mut names = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Names that start with a dot are files of editors.
            let served = |name: &String| !name.starts_with('.') && name != "package.json";
            let name = entry.file_name().into_string().ok().filter(served);
            if let (true, Some(name)) = (entry.file_type()?.is_file(), name) {
                names.push(name);
            }
        }
    }
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let path = folder.join(&name);
        println!("cargo:rerun-if-changed={}", path.display());
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
    }
    table.push(']');
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("dashboard.rs"), table)
}
