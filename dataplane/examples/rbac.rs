//! Writes the data plane's RBAC manifest from the rights that its modules state: `make rbac`.

fn main() -> std::io::Result<()> {
    let (path, text) = flutecast_dataplane::rights::manifest();
    std::fs::write(path, text)
}
