//! Nodes in the place of those that read what is stored in fewer bits.

use super::{Writer, cast};
use crate::bundle::proto::Node;
use crate::rewrite::edits::node;
use crate::rewrite::source::{input, output};

impl Writer<'_> {
    /// What stands in the place of a node of the graph; `None` where it stays.
    pub(super) fn remade(&mut self, at: usize) -> Option<Vec<Node>> {
        let reader = self.source.nodes.get(at)?;
        let made = output(reader)?;
        if let Some(table) = input(reader, 0).and_then(|name| self.widened.tables.get(name)) {
            let narrow = self.free_name(made, "half");
            let mut gather = reader.clone();
            gather.input.first_mut().into_iter().for_each(|name| name.clone_from(table));
            gather.output = vec![narrow.clone()];
            return Some(vec![gather, cast(&narrow, made)]);
        }
        let [weights, scales] = self.widened.columns.get(input(reader, 1)?)?.clone();
        self.product(input(reader, 0)?, &weights, &scales, made)
    }

    /// A product of 8 bits, in the form of which ONNX Runtime makes one operator: `com.microsoft.DynamicQuantizeMatMul`,
    /// or `MatMulIntegerToFloat` where several products are of the same `of`.
    fn product(&mut self, of: &str, weights: &str, scales: &str, made: &str) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        let [factor, scale, zero] = match self.widened.factors.get(of) {
            Some(names) => names.clone(),
            None => {
                let names = ["uint8", "uint8_scale", "uint8_zero"].map(|what| self.free_name(of, what));
                let quantized = node("DynamicQuantizeLinear", &[of], names.first()?, Vec::new());
                nodes.push(Node { output: names.to_vec(), ..quantized });
                self.widened.factors.insert(of.to_owned(), names.clone());
                names
            }
        };
        let [sum, real, both] = ["sum", "float", "scale"].map(|what| self.free_name(made, what));
        nodes.push(node("MatMulInteger", &[&factor, weights, &zero], &sum, Vec::new()));
        nodes.push(cast(&sum, &real));
        nodes.push(node("Mul", &[&scale, scales], &both, Vec::new()));
        nodes.push(node("Mul", &[&real, &both], made, Vec::new()));
        Some(nodes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use prost::Message;

    use crate::bundle::proto::{Attribute, Model, OperatorSet};
    use crate::bundle::{Component, ComponentKind, GraphFile};
    use crate::quantize::{Weights, graph};
    use crate::rewrite::edits::{self, field, int, ints};
    use crate::rewrite::numbers::TensorValues;
    use crate::rewrite::{Footprint, Pass, footprint, rewrite};
    use crate::session::Cancel;
    use crate::tensor::DType;

    /// Attention over 4 tokens of 32 channels in 4 heads, queries, keys and values by one matrix of ones.
    fn attention() -> Vec<u8> {
        let stored = |name: &str, dims: &[i64], dtype: DType, raw_data| TensorValues {
            dims: dims.to_vec(),
            data_type: dtype.to_onnx(),
            name: name.to_owned(),
            raw_data,
            ..TensorValues::default()
        };
        let list = |name, list: &[i64]| {
            stored(name, &[list.len() as i64], DType::I64, list.iter().flat_map(|n| n.to_le_bytes()).collect())
        };
        let ones = stored("w", &[32, 32], DType::F32, [1f32; 1024].iter().flat_map(|n| n.to_le_bytes()).collect());
        let mut body = Vec::new();
        let mut node = |operator: &str, inputs: &[&str], made: &str, attributes: Vec<Attribute>| {
            field(&mut body, 1, &edits::node(operator, inputs, made, attributes).encode_to_vec());
        };
        for (name, order) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
            let [product, heads] = ["product", "heads"].map(|what| format!("{name}/{what}"));
            node("MatMul", &["x", "w"], &product, vec![]);
            node("Reshape", &[&product, "heads"], &heads, vec![]);
            node("Transpose", &[&heads], name, vec![ints("perm", &order)]);
        }
        node("MatMul", &["q", "k"], "scores", vec![]);
        node("Softmax", &["scores"], "shares", vec![int("axis", -1)]);
        node("MatMul", &["shares", "v"], "parts", vec![]);
        node("Transpose", &["parts"], "turned", vec![ints("perm", &[0, 2, 1, 3])]);
        node("Reshape", &["turned", "flat"], "joined", vec![]);
        node("MatMul", &["joined", "w"], "y", vec![]);
        for tensor in [ones, list("heads", &[1, 4, 4, 8]), list("flat", &[1, 4, 32])] {
            field(&mut body, 5, &tensor.encode_to_vec());
        }
        let edge = |name: &str| graph::value_info(name, DType::F32, &[1, 4, 32]).encode_to_vec();
        field(&mut body, 11, &edge("x"));
        field(&mut body, 12, &edge("y"));
        let set = OperatorSet { domain: String::new(), version: 17 };
        let mut file = Model { ir_version: 8, opset_import: vec![set], ..Model::default() }.encode_to_vec();
        field(&mut file, 7, &body);
        file
    }

    fn component(path: &Path, folder: &Path) -> Component {
        let graph = GraphFile::open(path, folder).expect("a graph");
        Component {
            kind: ComponentKind::Unet,
            graph,
            config: Default::default(),
            config_path: None,
            roles: BTreeMap::new(),
        }
    }

    #[test]
    fn products_of_one_factor_share_it_and_attention_is_seen_through_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        [&old, &new].into_iter().for_each(|place| std::fs::create_dir(place).expect("a folder"));
        std::fs::write(old.join("model.onnx"), attention()).expect("a file");
        let write = |from: &Path, to: &Path| {
            let component = component(&from.join("model.onnx"), from);
            graph::write(from, to, &component, Weights::DynamicInt8, &Cancel::new(), &mut |_| ())
        };
        let outcome = write(&old, &new).expect("a graph");
        assert_eq!((outcome.tensors, outcome.unknown, outcome.largest_error), (1, 0, 0.0));

        let narrow = component(&new.join("model.onnx"), &new).graph;
        assert!(narrow.multiplies_in_integers());
        let count = |name: &str| narrow.operators.iter().find(|(o, _)| o.name == name).map(|(_, &count)| count);
        assert_eq!(
            (count("DynamicQuantizeLinear"), count("MatMulInteger"), count("MatMul")),
            (Some(2), Some(4), Some(2))
        );
        let report = rewrite(&narrow, &[Pass::Attention]).expect("a graph").expect("a place").report;
        assert_eq!(report, [(Pass::Attention, 1)]);
        // 32×32 numbers of 1 byte and 32 scales; queries, keys, values and what attention makes of them, 4×32 numbers each.
        let told = footprint(&narrow, &[Pass::Attention], &[]).expect("a graph");
        assert_eq!(told, Some(Footprint { weights: 32 * 32 + 32 * 4, activations: 4 * 4 * 32 * 4 }));

        let again = write(&new, folder.path()).expect_err("products of 8 bits").to_string();
        assert!(again.contains("makes products of 8 bits already"), "{again}");
    }
}
