//! Moves the repeated parts of a JSON schema into `$defs`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Shorter schemas are repeated: a reference to one is about as long.
const SHORTEST: usize = 80;

/// Returns the schema with a definition in `$defs` for every part that occurs more than once. A definition is named after
/// the key at which it occurs first.
pub(super) fn share(mut schema: Value) -> Value {
    let mut parts = Parts::default();
    for_each_part(&mut schema, "schema", &mut |name, part| parts.replace(name, part));
    let uses = parts.uses(&mut schema);
    let mut definitions = Definitions { parts: &parts.all, uses, names: HashMap::new(), written: Map::new() };
    definitions.restore(&mut schema);
    let written = definitions.written;
    schema["$defs"] = Value::Object(written);
    schema
}

/// Calls `change` with every schema directly in this one, and with the key that it belongs to.
fn for_each_part(schema: &mut Value, name: &str, change: &mut dyn FnMut(&str, &mut Value)) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.iter_mut().for_each(|(key, part)| change(key, part));
    }
    for field in ["items", "additionalProperties"] {
        if let Some(part) = fields.get_mut(field).filter(|part| part.is_object()) {
            change(name, part);
        }
    }
    if let Some(forms) = fields.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.iter_mut().for_each(|part| change(name, part));
    }
}

/// A schema whose own parts are numbers of others.
struct Part {
    schema: Value,
    name: String,
    length: usize,
}

/// The different parts of a schema.
#[derive(Default)]
struct Parts {
    all: Vec<Part>,
    numbers: HashMap<String, usize>,
}

impl Parts {
    /// Replaces a schema by its number. Equal schemas have the same number.
    fn replace(&mut self, name: &str, schema: &mut Value) {
        let length = schema.to_string().len();
        for_each_part(schema, name, &mut |name, part| self.replace(name, part));
        let number = *self.numbers.entry(schema.to_string()).or_insert_with(|| {
            self.all.push(Part { schema: schema.take(), name: name.into(), length });
            self.all.len() - 1
        });
        *schema = json!({ "number": number });
    }

    /// Returns the number of places that each part has in the whole schema and in the different parts.
    fn uses(&mut self, whole: &mut Value) -> HashMap<usize, usize> {
        let mut uses = HashMap::new();
        for schema in self.all.iter_mut().map(|part| &mut part.schema).chain([whole]) {
            for_each_part(schema, "", &mut |_, part| *uses.entry(number(part).unwrap_or_default()).or_default() += 1);
        }
        uses
    }
}

fn number(part: &Value) -> Option<usize> {
    part["number"].as_u64().and_then(|number| usize::try_from(number).ok())
}

/// The definitions written so far.
struct Definitions<'a> {
    parts: &'a [Part],
    uses: HashMap<usize, usize>,
    names: HashMap<usize, String>,
    written: Map<String, Value>,
}

impl Definitions<'_> {
    /// Puts the schemas back in place of their numbers, or references to their definitions.
    fn restore(&mut self, schema: &mut Value) {
        for_each_part(schema, "", &mut |_, part| *part = self.part(part));
    }

    fn part(&mut self, numbered: &Value) -> Value {
        let Some((number, part)) = number(numbered).and_then(|number| Some((number, self.parts.get(number)?))) else {
            return numbered.clone();
        };
        let is_shared = self.uses.get(&number).is_some_and(|uses| *uses > 1) && part.length >= SHORTEST;
        if is_shared && let Some(name) = self.names.get(&number) {
            return reference(name);
        }
        let mut schema = part.schema.clone();
        self.restore(&mut schema);
        if !is_shared {
            return schema;
        }
        let numbered = (2..).map(|n| format!("{}-{n}", part.name));
        let name = [part.name.clone()].into_iter().chain(numbered).find(|name| !self.written.contains_key(name));
        let name = name.unwrap_or_default();
        self.written.insert(name.clone(), schema);
        self.names.insert(number, name.clone());
        reference(&name)
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}
