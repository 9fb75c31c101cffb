//! A ValidatingAdmissionPolicy, evaluated as the API server does it: match, conditions, variables, validations, and
//! `failurePolicy: Fail`, by which an expression that cannot be evaluated refuses.

use cel::{Context, Program, Value as CelValue};
use serde_json::{Value, json};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: &'a str,
    /// The node that its token is bound to, if the token says so (Kubernetes 1.30).
    pub node: Option<&'a str>,
}

impl Who<'_> {
    fn info(&self) -> Value {
        let mut info = json!({"username": self.user, "groups": ["system:serviceaccounts", "system:authenticated"]});
        if let Some(node) = self.node {
            info["extra"] = json!({"authentication.kubernetes.io/node-name": [node],
                "authentication.kubernetes.io/pod-name": ["mountwarden-x"]});
        }
        info
    }
}

struct Named {
    name: String,
    program: Program,
}

/// The compiled policy.
pub struct Policy {
    rules: Vec<Value>,
    conditions: Vec<Named>,
    variables: Vec<Named>,
    validations: Vec<Named>,
}

impl Policy {
    /// The policy among the manifests' objects, whose binding must deny.
    pub fn of(objects: &[Value], name: &str) -> Policy {
        let find = |kind: &str| {
            let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
            found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
        };
        let binding = &find("ValidatingAdmissionPolicyBinding")["spec"];
        assert_eq!((&binding["policyName"], &binding["validationActions"]), (&json!(name), &json!(["Deny"])));
        let spec = &find("ValidatingAdmissionPolicy")["spec"];
        assert_eq!(spec["failurePolicy"], "Fail");
        let list = |key: &str, word: &str| spec[key].as_array().unwrap().iter().map(|one| named(one, word)).collect();
        Policy {
            rules: spec["matchConstraints"]["resourceRules"].as_array().unwrap().clone(),
            conditions: list("matchConditions", "name"),
            variables: list("variables", "name"),
            validations: list("validations", "message"),
        }
    }

    /// Why the write is refused; none where it is not, or where the policy does not look at it.
    pub fn refuses(&self, who: Who<'_>, request: &Value, object: &Value, old: &Value) -> Option<String> {
        if !self.rules.iter().any(|rule| covers(rule, request)) {
            return None;
        }
        let mut request = request.clone();
        request["userInfo"] = who.info();
        let mut context = Context::default();
        for (name, value) in [("request", &request), ("object", object), ("oldObject", old)] {
            context.add_variable(name, value).unwrap();
        }
        for condition in &self.conditions {
            match condition.program.execute(&context) {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return None,
                other => return Some(format!("matchCondition {}: {other:?}", condition.name)),
            }
        }
        let mut variables = std::collections::HashMap::new();
        for variable in &self.variables {
            match variable.program.execute(&context) {
                Ok(value) => variables.insert(variable.name.clone(), value),
                Err(error) => return Some(format!("variable {}: {error}", variable.name)),
            };
        }
        context.add_variable_from_value("variables", variables);
        self.validations.iter().find_map(|validation| match validation.program.execute(&context) {
            Ok(CelValue::Bool(true)) => None,
            Ok(CelValue::Bool(false)) => Some(validation.name.clone()),
            other => Some(format!("{}: {other:?}", validation.name)),
        })
    }
}

fn named(one: &Value, word: &str) -> Named {
    let expression = one["expression"].as_str().unwrap();
    let program = Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    Named { name: one[word].as_str().unwrap().to_owned(), program }
}

fn covers(rule: &Value, request: &Value) -> bool {
    let has = |key: &str, wanted: &str| rule[key].as_array().unwrap().iter().any(|word| word == wanted || word == "*");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let resource = match request["subResource"].as_str() {
        None | Some("") => text(&request["resource"]["resource"]),
        Some(sub) => format!("{}/{sub}", text(&request["resource"]["resource"])),
    };
    has("apiGroups", &text(&request["resource"]["group"]))
        && has("apiVersions", &text(&request["resource"]["version"]))
        && has("resources", &resource)
        && has("operations", &text(&request["operation"]))
}
