//! Finds the module of the exported model that each stored weight belongs to.
//!
//! torch's exporter stores a convolution's weight under its name in the model's state dict. It transposes that of a
//! linear layer and stores it under a meaningless name (`onnx::MatMul_1632`); the path of the node that reads it then
//! contains the module (`/down_blocks.1/attentions.0/proj_in/MatMul`), or, with the newer exporter, the node's metadata
//! does.
//! node notes about where it came from.

use std::collections::HashMap;

use super::proto::{AttributeProto, GraphProto, NodeProto};

/// A stored tensor that a module multiplies by.
#[derive(Debug, PartialEq, Eq)]
pub struct WeightReader {
    /// The module's path with dots, as exported: `model.down_blocks.1.attentions.0.proj_in`.
    pub module: String,
    /// The index of the tensor among the graph's initializers.
    pub initializer: usize,
    /// True if the tensor is stored as `[in, out]`.
    pub transposed: bool,
}

/// Returns all stored tensors that linear layers and convolutions multiply by, in the order of the graph's nodes. Nodes
/// in branches are ignored.
pub fn readers(graph: &GraphProto) -> Vec<WeightReader> {
    let stored = graph.initializer.iter().enumerate().map(|(at, tensor)| (tensor.name.as_str(), at)).collect();
    let mut makers = HashMap::new();
    for node in &graph.node {
        makers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), node)));
    }
    let wires = Connections { stored, makers };
    graph.node.iter().filter_map(|node| wires.read(node)).collect()
}

struct Connections<'a> {
    stored: HashMap<&'a str, usize>,
    makers: HashMap<&'a str, &'a NodeProto>,
}

impl<'a> Connections<'a> {
    fn read(&self, node: &'a NodeProto) -> Option<WeightReader> {
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let is_on = |name: &str| attribute(name).is_some_and(|a| a.i != 0);
        let is_plain = attribute("alpha").is_none_or(|a| a.f == 1.0) && !is_on("transA");
        let is_convolution = matches!(node.op_type.as_str(), "Conv" | "FusedConv");
        let transposed = match node.op_type.as_str() {
            _ if is_convolution => false,
            "MatMul" => true,
            "Gemm" | "FusedMatMul" if is_plain => !is_on("transB"),
            _ => return None,
        };
        let found = self.origin(node.input.get(1)?)?;
        if is_convolution && found.turned {
            return None;
        }
        let module = found.module.or_else(|| noted(node)).or_else(|| on_path(node))?;
        Some(WeightReader { module, initializer: found.initializer, transposed: transposed != found.turned })
    }

    /// Traces a name back to the stored tensor, through nodes that do not change its values.
    fn origin(&self, name: &'a str) -> Option<Origin> {
        let (mut name, mut module, mut turned) = (name, None, false);
        // The limit keeps a cyclic file from looping.
        for _ in 0..8 {
            module = module.or_else(|| name.strip_suffix(".weight").map(str::to_owned));
            if let Some(&initializer) = self.stored.get(name) {
                return Some(Origin { initializer, module, turned });
            }
            let node = self.makers.get(name)?;
            match node.op_type.as_str() {
                "Identity" | "Cast" => {}
                "Transpose" if node.attribute.iter().all(swaps_two) => turned = !turned,
                _ => return None,
            }
            name = node.input.first()?;
        }
        None
    }
}

struct Origin {
    initializer: usize,
    /// The module in the tensor's own name.
    module: Option<String>,
    /// True if it is transposed on its way.
    turned: bool,
}

fn swaps_two(attribute: &AttributeProto) -> bool {
    attribute.name != "perm" || attribute.ints == [1, 0]
}

/// Returns the module in a node's name, which ends in the operator: `/down_blocks.0/resnets.0/conv1/Conv`.
fn on_path(node: &NodeProto) -> Option<String> {
    let (module, _) = node.name.strip_prefix('/')?.rsplit_once('/')?;
    Some(module.replace('/', "."))
}

/// Returns the module in the scopes that the newer exporter records, a list in Python's format whose last but one entry
/// is the module: `['', 'blk.0', 'blk.0.to_q', 'linear']`.
fn noted(node: &NodeProto) -> Option<String> {
    let note = node.metadata_props.iter().find(|entry| entry.key == "pkg.torch.onnx.name_scopes")?;
    let scopes: Vec<&str> = note.value.split('\'').skip(1).step_by(2).collect();
    let module = scopes.get(scopes.len().checked_sub(2)?)?;
    (!module.is_empty()).then(|| (*module).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::proto::{StringEntry, TensorProto};
    use super::*;

    fn node(op: &str, name: &str, input: &[&str], output: &str) -> NodeProto {
        let input = input.iter().map(|&name| name.to_owned()).collect();
        NodeProto { name: name.into(), op_type: op.into(), input, output: vec![output.into()], ..NodeProto::default() }
    }

    fn with(mut node: NodeProto, name: &str, i: i64, ints: &[i64]) -> NodeProto {
        node.attribute.push(AttributeProto { name: name.into(), i, ints: ints.to_vec(), ..AttributeProto::default() });
        node
    }

    fn read(stored: &[&str], nodes: Vec<NodeProto>) -> Vec<(String, usize, bool)> {
        let tensor = |&name: &&str| TensorProto { name: name.into(), dims: vec![2, 2], ..TensorProto::default() };
        let graph =
            GraphProto { node: nodes, initializer: stored.iter().map(tensor).collect(), ..GraphProto::default() };
        readers(&graph).into_iter().map(|r| (r.module, r.initializer, r.transposed)).collect()
    }

    #[test]
    fn a_module_is_told_by_name_by_path_or_by_note() {
        let mut noting = node("MatMul", "node_linear", &["x", "w2"], "c");
        let (key, value) = ("pkg.torch.onnx.name_scopes".into(), "['', 'mid', 'mid.to_q', 'linear']".into());
        noting.metadata_props.push(StringEntry { key, value });
        let nodes = vec![
            node("Conv", "/elsewhere/Conv", &["x", "conv_in.weight", "b"], "a"),
            node("MatMul", "/mid/attn1/to_out.0/MatMul", &["x", "onnx::MatMul_7"], "b"),
            noting,
            node("MatMul", "", &["x", "w2"], "d"),
            node("MatMul", "/mid/attn1/MatMul", &["x", "b"], "e"),
        ];
        let got = read(&["conv_in.weight", "onnx::MatMul_7", "w2"], nodes);
        let wanted = [("conv_in", 0, false), ("mid.attn1.to_out.0", 1, true), ("mid.to_q", 2, true)];
        assert_eq!(got, wanted.map(|(module, at, turned)| (module.to_owned(), at, turned)));
    }

    #[test]
    fn a_weight_is_followed_through_what_leaves_its_values() {
        let nodes = vec![
            node("Identity", "", &["one.weight"], "two.weight"),
            with(node("Transpose", "", &["two.weight"], "t"), "perm", 0, &[1, 0]),
            node("Cast", "", &["t"], "cast"),
            node("MatMul", "/ignored/MatMul", &["x", "cast"], "a"),
            with(node("Gemm", "/fc/Gemm", &["x", "w", "b"], "c"), "transB", 1, &[]),
            node("Gemm", "/gc/Gemm", &["x", "w", "b"], "d"),
            with(node("Transpose", "", &["k.weight"], "kt"), "perm", 0, &[1, 0, 2, 3]),
            node("Conv", "/k/Conv", &["x", "kt"], "e"),
            node("Identity", "", &["loop"], "loop"),
            node("MatMul", "/loop/MatMul", &["x", "loop"], "f"),
        ];
        let got = read(&["one.weight", "w", "k.weight"], nodes);
        let wanted = [("two", 0, false), ("fc", 1, false), ("gc", 1, true)];
        assert_eq!(got, wanted.map(|(module, at, turned)| (module.to_owned(), at, turned)));
    }
}
