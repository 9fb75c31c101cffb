//! The kill switch: a key that anybody with rights in the namespace can set within seconds.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::client::call;

/// Name of the ConfigMap.
pub const NAME: &str = "mountwarden-remedy";

/// Its key: any value but `false` stops.
pub const KEY: &str = "stop";

/// Whether remedies may go on, and else why not.
///
/// # Errors
/// The words why everything stops; what cannot be read counts as stopped.
pub async fn read(client: &Client, namespace: &str) -> Result<(), String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match call(api.get_opt(NAME)).await {
        Ok(found) => judge(found.as_ref()),
        Err(failure) => Err(format!("ConfigMap {NAME} cannot be read: {failure}")),
    }
}

fn judge(found: Option<&ConfigMap>) -> Result<(), String> {
    let value = found.and_then(|object| object.data.as_ref()).and_then(|data| data.get(KEY));
    match value.map(|value| value.trim()) {
        None | Some("false") => Ok(()),
        Some(value) => Err(format!("ConfigMap {NAME} says {KEY}: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_but_false_stops() {
        let with =
            |value: &str| ConfigMap { data: Some([(KEY.to_owned(), value.to_owned())].into()), ..ConfigMap::default() };
        assert!(judge(None).is_ok() && judge(Some(&ConfigMap::default())).is_ok());
        assert!(judge(Some(&with("false"))).is_ok());
        for value in ["true", "", "False", "no", "0"] {
            assert!(judge(Some(&with(value))).is_err(), "{value:?}");
        }
    }
}
