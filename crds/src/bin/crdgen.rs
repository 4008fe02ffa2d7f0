//! Writes the definitions, and optionally the reference of the API:
//! `cargo run -p flutecast-crds --bin crdgen -- crds/yaml docs/api.md`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use flutecast_crds::definition::CrdKind;
use flutecast_crds::reference;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), markdown, None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: crdgen FOLDER [REFERENCE.md], for example crdgen crds/yaml docs/api.md".into());
    };
    fs::create_dir_all(&folder)?;
    for kind in CrdKind::ALL {
        fs::write(folder.join(kind.file_name()), kind.yaml()?)?;
    }
    if let Some(path) = markdown {
        fs::write(path, reference::markdown()?)?;
    }
    Ok(())
}
