//! The kill switch, read by the coordinator.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::client::call;
pub use crate::remedy::switch::{KEY, NAME};

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
    crate::remedy::switch::judge(value.map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_key_stops() {
        let with =
            |key: &str| ConfigMap { data: Some([(key.to_owned(), "true".to_owned())].into()), ..ConfigMap::default() };
        assert!(judge(None).is_ok() && judge(Some(&ConfigMap::default())).is_ok());
        assert!(judge(Some(&with("other"))).is_ok() && judge(Some(&with(KEY))).is_err());
    }
}
