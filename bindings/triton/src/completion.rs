//! Completing a model's configuration: inputs and outputs that it does not list.

use serde_json::{Value, json};

use crate::names::{INPUTS, OUTPUTS};

/// Adds all inputs if the configuration lists none, and all outputs likewise. Returns true if something was added.
pub(crate) fn complete(config: &mut Value) -> bool {
    let is_batched = config["max_batch_size"].as_i64().unwrap_or(0) > 0;
    let is_decoupled = config["model_transaction_policy"]["decoupled"].as_bool().unwrap_or(false);
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let (lacks_inputs, lacks_outputs) = (is_empty(&config["input"]), is_empty(&config["output"]));
    if lacks_inputs {
        let inputs = INPUTS.iter().filter(|input| is_decoupled || !input.is_decoupled).map(|input| {
            let data_type = format!("TYPE_{}", input.types()[0]);
            json!({
                "name": input.name, "data_type": data_type, "dims": [input.dimensions(is_batched)], "optional": true
            })
        });
        config["input"] = inputs.collect();
    }
    if lacks_outputs {
        let outputs = OUTPUTS.iter().filter(|output| is_decoupled || !output.is_decoupled()).map(|output| {
            let data_type = format!("TYPE_{}", output.data_type());
            let dimensions = output.dimensions(is_batched, is_decoupled);
            json!({ "name": output.name().to_string_lossy(), "data_type": data_type, "dims": dimensions })
        });
        config["output"] = outputs.collect();
    }
    lacks_inputs || lacks_outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &Value) -> Vec<&str> {
        list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
    }

    /// A configuration of a name and a backend gets everything; one that lists its own keeps it.
    #[test]
    fn completes_what_is_absent() {
        let mut config =
            json!({"name": "shapes", "backend": "ldm_ort", "max_batch_size": 0, "input": [], "output": []});
        assert!(complete(&mut config));
        assert_eq!(names(&config["input"]).len(), INPUTS.len() - 1);
        assert_eq!(names(&config["output"]), ["IMAGE", "ENCODED", "SEED", "RECORD"]);
        assert!(config["input"].as_array().is_some_and(|all| all.iter().all(|input| input["optional"] == true)));
        assert!(!complete(&mut config));

        let mut config = json!({"output": [{"name": "IMAGE"}], "model_transaction_policy": {"decoupled": true}});
        assert!(complete(&mut config));
        assert_eq!(names(&config["output"]), ["IMAGE"]);
        assert_eq!(names(&config["input"]).len(), INPUTS.len());
    }

    /// With batches a prompt is one text for each row.
    #[test]
    fn dimensions_depend_on_batches() {
        let prompt = |batch: i64| {
            let mut config = json!({"max_batch_size": batch});
            complete(&mut config);
            (config["input"][1]["dims"].clone(), config["output"][2]["dims"].clone())
        };
        assert_eq!(prompt(0), (json!([-1]), json!([-1])));
        assert_eq!(prompt(4), (json!([1]), json!([1])));
    }
}
