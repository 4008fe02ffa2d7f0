use flutecast_testbed::image::NONROOT;
use flutecast_testkit::in_repository;

use super::image_build::PROGRAMS;

#[test]
fn the_containerfile_makes_the_same_images() {
    let root = in_repository("");
    let text = std::fs::read_to_string(root.join("Containerfile")).unwrap();
    assert!(text.contains(&format!("USER {NONROOT}:{NONROOT}")));
    for program in PROGRAMS {
        let name = program.name;
        let stage = text.split("\nFROM ").find(|stage| stage.contains(&format!("ENTRYPOINT [\"/{name}\"]")));
        let stage = stage.unwrap_or_else(|| panic!("no stage of {name}"));
        let ports = program.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        assert!(stage.contains(&format!("EXPOSE {ports}\n")), "{stage}");
        assert!(stage.contains(&format!("/target/image/{name} /{name}\n")), "{stage}");
        for (label, value) in [
            ("title", name),
            ("description", program.description),
            ("licenses", "Apache-2.0"),
            ("vendor", "Flutecast"),
        ] {
            assert!(
                stage.contains(&format!("org.opencontainers.image.{label}={value:?}")),
                "{label}: {stage}"
            );
        }
    }
}
