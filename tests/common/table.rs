//! Tables in hand-written pages that a test makes: between two comments, compared, and written with `MOUNTWARDEN_BLESS=1`.

use std::path::Path;

/// Holds what stands in `page` between `<!-- NAME: made by a test -->` and `<!-- end -->` against `made`.
pub fn hold(page: &str, name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name}: made by a test -->\n"), "<!-- end -->");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no place for {name}"));
    let (committed, after) = rest.split_once(end).unwrap_or_else(|| panic!("{page}: {name} has no end"));
    let made = format!("{}\n", made.trim_end());
    if std::env::var_os("MOUNTWARDEN_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{made}{end}{after}")).unwrap();
        return;
    }
    assert!(committed == made, "{page}: {name} is out of date; MOUNTWARDEN_BLESS=1 with this test writes it:\n{made}");
}
