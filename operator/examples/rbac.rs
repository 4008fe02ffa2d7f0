//! Writes the operator's RBAC manifests from the rights that its modules state: `make rbac`.

fn main() -> std::io::Result<()> {
    for (path, text) in flutecast_operator::rights::manifests() {
        std::fs::write(path, text)?;
    }
    Ok(())
}
