//! Traces a graph's input to the nodes that read it first.

use std::collections::{HashMap, HashSet};

use super::proto::{GraphProto, NodeProto, TensorProto};

/// A graph with an index of its connections.
pub struct Trace<'a> {
    stored: HashMap<&'a str, &'a TensorProto>,
    makers: HashMap<&'a str, &'a NodeProto>,
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
}

impl<'a> Trace<'a> {
    pub fn new(graph: &'a GraphProto) -> Self {
        let mut trace = Self {
            stored: graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect(),
            makers: HashMap::new(),
            readers: HashMap::new(),
        };
        for node in &graph.node {
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                trace.makers.insert(name, node);
            }
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                trace.readers.entry(name).or_default().push(node);
            }
        }
        trace
    }

    /// Returns the number of rows of the smallest table that this input's values index.
    pub fn table_rows(&self, input: &str) -> Option<usize> {
        let rows = |name: &&String| self.dims(name)?.first().and_then(|&rows| usize::try_from(rows).ok());
        self.tables(input).iter().filter_map(rows).filter(|&rows| rows > 0).min()
    }

    /// Returns the stored table that this input's values index, if there is exactly one.
    pub fn table(&self, input: &str) -> Option<&'a TensorProto> {
        let mut tables = self.tables(input);
        tables.dedup();
        let [table] = tables.as_slice() else { return None };
        self.stored_behind(table)
    }

    /// Returns the names of the tables that this input's values index.
    fn tables(&self, input: &str) -> Vec<&'a String> {
        self.follow(input, &["Cast", "Identity", "Reshape", "Flatten", "Unsqueeze", "Squeeze"], |name, node| {
            let table = match node.op_type.as_str() {
                "Gather" | "GatherBlockQuantized" if node.input.get(1).is_some_and(|ids| ids == name) => 0,
                "EmbedLayerNormalization" if node.input.first().is_some_and(|ids| ids == name) => 2,
                _ => return None,
            };
            node.input.get(table)
        })
    }

    /// Returns the number of channels of the convolution that reads this input.
    pub fn convolved_channels(&self, input: &str) -> Option<usize> {
        self.follow(input, &["Cast", "Identity"], |name, node| {
            let reads = node.op_type == "Conv" && node.input.first().is_some_and(|x| x == name);
            let weights = self.dims(node.input.get(1).filter(|_| reads)?)?;
            weights.get(1).and_then(|&n| usize::try_from(n).ok())
        })
        .into_iter()
        .max()
    }

    /// Collects the results of `found` for the nodes that read `input`, directly or through nodes that do not change
    /// values.
    fn follow<T>(&self, input: &str, through: &[&str], found: impl Fn(&str, &'a NodeProto) -> Option<T>) -> Vec<T> {
        let mut results = Vec::new();
        let mut seen = HashSet::from([input]);
        let mut open = vec![input];
        while let Some(name) = open.pop() {
            for node in self.readers.get(name).into_iter().flatten() {
                results.extend(found(name, node));
                if through.contains(&node.op_type.as_str())
                    && node.input.first().is_some_and(|x| x == name)
                    && let Some(output) = node.output.first()
                    && seen.insert(output)
                {
                    open.push(output);
                }
            }
        }
        results
    }

    /// Returns the stored tensor with this name, also behind nodes that do not change its values.
    pub fn stored_behind(&self, name: &str) -> Option<&'a TensorProto> {
        self.stored.get(name).copied().or_else(|| self.stored.get(self.name_behind(name)?).copied())
    }

    /// Returns the node that computes this name's values, skipping nodes that do not change them.
    pub fn maker_behind(&self, name: &str) -> Option<&'a NodeProto> {
        let node = *self.makers.get(name)?;
        if !is_plain(node) {
            return Some(node);
        }
        self.makers.get(self.name_behind(name)?).copied()
    }

    /// Traces a name back through nodes that do not change its values.
    fn name_behind(&self, name: &str) -> Option<&'a str> {
        let mut node = *self.makers.get(name)?;
        // The limit keeps a cyclic file from looping.
        for _ in 0..8 {
            let before = node.input.first().filter(|_| is_plain(node))?;
            match self.makers.get(before.as_str()) {
                Some(maker) if is_plain(maker) => node = maker,
                _ => return Some(before),
            }
        }
        None
    }

    /// Returns the shape of a stored tensor, also behind nodes that only change how its values are stored.
    fn dims(&self, name: &str) -> Option<&'a [i64]> {
        let mut name = name;
        // Stored weights are at most a cast and a dequantization away; the limit keeps a cyclic file from looping.
        for _ in 0..8 {
            if let Some(tensor) = self.stored.get(name) {
                return Some(&tensor.dims);
            }
            let node = self.makers.get(name)?;
            match node.op_type.as_str() {
                "Constant" => return node.attribute.iter().find_map(|a| a.t.as_ref()).map(|t| t.dims.as_slice()),
                "Cast" | "Identity" | "DequantizeLinear" => name = node.input.first()?,
                _ => return None,
            }
        }
        None
    }
}

/// Returns true if a node does not change the values of its input.
fn is_plain(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Cast" | "Identity")
}
