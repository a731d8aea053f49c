//! Files that people have: a conf, a conflist, NetworkAttachmentDefinitions in JSON or YAML, several in one file. For
//! `check-config`; the plugin itself only ever gets a conf.

use serde::Deserialize;

use super::reader::Reader;
use super::{ConfigurationError, INPUT_LIMIT, Json, NetworkConfiguration, Object};

/// A network configuration that was found in a file.
#[derive(Debug)]
pub struct Document {
    /// Where in the file: empty for a plain conf, else such as `NetworkAttachmentDefinition default/blue, plugins[1]`.
    pub origin: String,
    /// Whether it is a NetworkAttachmentDefinition, which only pods of a cluster use.
    pub is_for_pods: bool,
    /// The configuration, or why there is none.
    pub network: Result<NetworkConfiguration, ConfigurationError>,
}

/// Finds the network configurations of this plugin in a file: every plugin of a list whose `ipam.type` is whereabouts,
/// and every NetworkAttachmentDefinition. Other Kubernetes objects beside them are passed over.
///
/// # Errors
/// The file as a whole is too large, is neither JSON nor YAML, or holds nothing of the kind.
///
/// ```
/// use whereabouts::config::read_documents;
///
/// let file = r#"
/// kind: NetworkAttachmentDefinition
/// metadata: {name: blue}
/// spec:
///   config: '{"type": "macvlan", "ipam": {"type": "whereabouts", "range": "10.0.0.0/24"}}'
/// "#;
/// let documents = read_documents("blue.yaml", file.as_bytes())?;
/// assert_eq!(documents[0].origin, "NetworkAttachmentDefinition blue");
/// assert_eq!(documents[0].network.as_ref().unwrap().name()?.as_deref(), Some("blue"));
/// # Ok::<(), whereabouts::config::ConfigurationError>(())
/// ```
pub fn read_documents(file: &str, bytes: &[u8]) -> Result<Vec<Document>, ConfigurationError> {
    if bytes.len() > INPUT_LIMIT {
        return Err(ConfigurationError::TooLarge { input: file.to_owned() });
    }
    let mut documents = Vec::new();
    match Json::parse(bytes) {
        Ok(json) => collect(&json, &mut documents),
        Err(source) if bytes.trim_ascii_start().starts_with(b"{") => return Err(ConfigurationError::Json { source }),
        Err(_) => {
            let text = String::from_utf8_lossy(bytes);
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let json = Json::deserialize(document)
                    .map_err(|error| ConfigurationError::Yaml { input: file.to_owned(), reason: error.to_string() })?;
                collect(&json, &mut documents);
            }
        }
    }
    if documents.is_empty() {
        return Err(ConfigurationError::value(
            "the file",
            file,
            "there is no network configuration in it",
            "give a conf, a conflist or a NetworkAttachmentDefinition",
        ));
    }
    Ok(documents)
}

fn collect(json: &Json, documents: &mut Vec<Document>) {
    let Some(object) = json.as_object() else { return };
    let kind = object.get("kind").and_then(Json::as_str).unwrap_or_default();
    if kind == "NetworkAttachmentDefinition" {
        collect_attachment_definition(object, documents);
    } else if let Some(items) = object.get("items").and_then(Json::as_array).filter(|_| kind.ends_with("List")) {
        for item in items {
            collect(item, documents);
        }
    } else if kind.is_empty() {
        collect_network(object.clone(), String::new(), false, documents);
    }
}

fn collect_attachment_definition(definition: &Object, documents: &mut Vec<Document>) {
    let metadata = definition.get("metadata").and_then(Json::as_object);
    let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Json::as_str);
    let name = text("name").unwrap_or_default();
    let origin = match text("namespace") {
        Some(namespace) => format!("NetworkAttachmentDefinition {namespace}/{name}"),
        None => format!("NetworkAttachmentDefinition {name}"),
    };
    match read_attachment_definition(definition) {
        Ok(network) => {
            let mut object = network.object().clone();
            // As Multus does.
            if object.get("name").is_none() {
                object.insert("name", Json::String(name.to_owned()));
            }
            collect_network(object, origin, true, documents);
        }
        Err(error) => documents.push(Document { origin, is_for_pods: true, network: Err(error) }),
    }
}

fn read_attachment_definition(definition: &Object) -> Result<NetworkConfiguration, ConfigurationError> {
    let spec = Reader::new(definition, "").object("spec")?;
    let config = spec.map_or(Ok(None), |spec| Reader::new(spec, "spec.").string("config"))?.unwrap_or_default();
    if config.trim().is_empty() {
        return Err(ConfigurationError::value(
            "spec.config",
            "\"\"",
            "is empty, so the configuration is a file on the hosts",
            "check that file instead",
        ));
    }
    NetworkConfiguration::parse(config.as_bytes())
}

fn collect_network(object: Object, origin: String, is_for_pods: bool, documents: &mut Vec<Document>) {
    let Some(plugins) = object.get("plugins").and_then(Json::as_array) else {
        documents.push(Document { origin, is_for_pods, network: Ok(object.into()) });
        return;
    };
    let separator = if origin.is_empty() { "" } else { ", " };
    let before = documents.len();
    let mut other = None;
    for (position, plugin) in plugins.iter().enumerate() {
        let Some(plugin) = plugin.as_object() else { continue };
        let mut plugin = plugin.clone();
        // What the list says goes to each plugin, as libcni does it.
        for key in ["name", "cniVersion"] {
            if let Some(value) = object.get(key) {
                plugin.insert(key, value.clone());
            }
        }
        let network = NetworkConfiguration::from(plugin);
        match network.ipam() {
            Ok(_) => {
                let origin = format!("{origin}{separator}plugins[{position}]");
                documents.push(Document { origin, is_for_pods, network: Ok(network) });
            }
            // A plugin without addresses, such as tuning, is none of our business.
            Err(ConfigurationError::MissingIpam) => {}
            Err(error) => other = Some(error),
        }
    }
    if documents.len() == before {
        let error = other.unwrap_or(ConfigurationError::MissingIpam);
        documents.push(Document { origin, is_for_pods, network: Err(error) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let documents = read_documents("file", text.as_bytes()).unwrap();
        let found: Vec<_> = documents
            .iter()
            .map(|document| {
                (document.origin.as_str(), document.network.as_ref().ok().map(|n| n.name().unwrap().unwrap()))
            })
            .collect();
        let found: Vec<_> = found.iter().map(|(origin, name)| (*origin, name.as_deref())).collect();
        assert_eq!(found, expected, "{documents:?}");
    }

    const OURS: &str =
        r#"{"type": "bridge", "name": "inner", "ipam": {"type": "whereabouts", "range": "10.0.0.0/24"}}"#;

    #[test]
    fn a_conf_and_every_plugin_of_a_list() {
        check(OURS, &[("", Some("inner"))]);
        let list = format!(
            r#"{{"name": "list", "cniVersion": "1.0.0", "plugins": [{{"type": "tuning"}}, {OURS},
            {{"type": "x", "ipam": {{"type": "static"}}}}, {OURS}]}}"#
        );
        check(&list, &[("plugins[1]", Some("list")), ("plugins[3]", Some("list"))]);
        check(r#"{"name": "list", "plugins": [{"type": "x", "ipam": {"type": "static"}}]}"#, &[("", None)]);
        check(r#"{"name": "list", "plugins": []}"#, &[("", None)]);
    }

    #[test]
    fn attachment_definitions_in_yaml_and_json() {
        let yaml = format!(
            "---\nkind: Deployment\nmetadata: {{name: x}}\n---\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: \
             blue\n  namespace: default\nspec:\n  config: |\n    {{\"plugins\": [{OURS}], \"name\": \"listed\"}}\n---\n\
             kind: NetworkAttachmentDefinition\nmetadata: {{name: on-disk}}\n---\n"
        );
        check(
            &yaml,
            &[
                ("NetworkAttachmentDefinition default/blue, plugins[0]", Some("listed")),
                ("NetworkAttachmentDefinition on-disk", None),
            ],
        );
        let config = serde_json::to_string(r#"{"ipam": {"type": "whereabouts"}}"#).unwrap();
        let json = format!(
            r#"{{"kind": "List", "items": [{{"kind": "NetworkAttachmentDefinition", "metadata": {{"name": "n"}},
            "spec": {{"config": {config}}}}}]}}"#
        );
        check(&json, &[("NetworkAttachmentDefinition n", Some("n"))]);
    }

    #[test]
    fn what_holds_no_configuration_is_an_error_that_names_the_file() {
        for (text, word) in [
            ("kind: Pod\n", "no network configuration"),
            ("", "no network configuration"),
            ("a: [", "is not YAML"),
            ("{\"a\": ", "JSON Parsing Error"),
        ] {
            let error = read_documents("some.file", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let error = read_documents("some.file", &vec![b' '; INPUT_LIMIT + 1]).unwrap_err().to_string();
        assert!(error.contains("some.file is larger"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "[-{}\\[\\]a-c:&*! \n'\"|>%]{0,60}") {
            let _ = read_documents("f", text.as_bytes());
            let _ = read_documents("f", near.as_bytes());
        }
    }
}
