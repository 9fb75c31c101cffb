//! The pages about the configuration say what the program does.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::path::{Path, PathBuf};

use mountwarden::config::{Config, Overrides, docs};

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

#[expect(clippy::disallowed_methods, reason = "a file of the source tree")]
fn read(name: &str) -> String {
    std::fs::read_to_string(page(name)).unwrap()
}

#[test]
fn the_reference_page_is_the_one_that_config_doc_writes() {
    assert_eq!(read("configuration.md"), docs::markdown(), "run: mountwarden config-doc > docs/configuration.md");
}

#[test]
fn the_example_file_is_the_one_that_config_doc_writes() {
    let hint = "run: mountwarden config-doc --example > docs/example-config.yaml";
    assert_eq!(read("example-config.yaml"), docs::example(), "{hint}");
}

#[test]
fn the_example_file_says_the_defaults() {
    let config = Config::load(Some(&page("example-config.yaml")), &Overrides::default()).unwrap();
    assert_eq!(config, Config::default());
}
