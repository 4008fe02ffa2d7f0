//! Writes the CustomResourceDefinitions: `cargo run -p flutecast-crds --bin crdgen -- crds/yaml`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use flutecast_crds::definition::Kind;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("give the folder to write to, and nothing else: crdgen crds/yaml".into());
    };
    fs::create_dir_all(&folder)?;
    for kind in Kind::ALL {
        fs::write(folder.join(kind.file_name()), kind.yaml()?)?;
    }
    Ok(())
}
