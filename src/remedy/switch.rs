//! The kill switch: a key of a ConfigMap that anybody with rights in the namespace can set within seconds.

/// Name of the ConfigMap.
pub const NAME: &str = "mountwarden-remedy";

/// Its key: any value but `false` stops.
pub const KEY: &str = "stop";

/// Whether remedies may go on, by the value of the key.
///
/// # Errors
/// The words why everything stops.
pub fn judge(value: Option<&str>) -> Result<(), String> {
    match value.map(str::trim) {
        None | Some("false") => Ok(()),
        Some(value) => Err(format!("ConfigMap {NAME} says {KEY}: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_but_false_stops() {
        assert!(judge(None).is_ok() && judge(Some("false")).is_ok() && judge(Some(" false\n")).is_ok());
        for value in ["true", "", "False", "no", "0"] {
            assert!(judge(Some(value)).is_err(), "{value:?}");
        }
    }
}
