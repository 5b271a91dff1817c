//! Replaces the nodes that read quantized tensors.

use super::{Writer, cast};
use crate::bundle::proto::NodeProto;
use crate::rewrite::edits::node;
use crate::rewrite::indexed_graph::{input, output};

impl Writer<'_> {
    /// Returns the replacement for a node of the graph; `None` if it stays.
    pub(super) fn replacement_of(&mut self, at: usize) -> Option<Vec<NodeProto>> {
        let reader = self.output.source.nodes.get(at)?;
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

    /// Returns an 8-bit product, in the form that ONNX Runtime fuses into one operator:
    /// `com.microsoft.DynamicQuantizeMatMul`, or `MatMulIntegerToFloat` if several products read the same `of`.
    fn product(&mut self, of: &str, weights: &str, scales: &str, made: &str) -> Option<Vec<NodeProto>> {
        let mut nodes = Vec::new();
        let [factor, scale, zero] = match self.widened.factors.get(of) {
            Some(names) => names.clone(),
            None => {
                let names = ["uint8", "uint8_scale", "uint8_zero"].map(|what| self.free_name(of, what));
                let quantized = node("DynamicQuantizeLinear", &[of], names.first()?, Vec::new());
                nodes.push(NodeProto { output: names.to_vec(), ..quantized });
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
    use std::path::Path;

    use prost::Message;

    use crate::bundle::proto::{ModelProto, OperatorSetProto};
    use crate::bundle::{Component, ComponentKind, GraphFile};
    use crate::quantize::output::Destination;
    use crate::quantize::{WeightFormat, graph};
    use crate::rewrite::edits::{field, ints, node};
    use crate::rewrite::numbers::TensorValues;
    use crate::rewrite::{Footprint, Pass, footprint, rewrite};
    use crate::session::Cancel;
    use crate::tensor::DType;

    /// Attention over 4 tokens of 32 channels in 4 heads, all with one matrix: operator, inputs, output, order of the
    /// axes.
    const NODES: &str = "MatMul x w a|Reshape a heads b|Transpose b q 0213|MatMul x w c|Reshape c heads d|\
        Transpose d k 0231|MatMul x w e|Reshape e heads f|Transpose f v 0213|MatMul q k g|Softmax g h|MatMul h v i|\
        Transpose i j 0213|Reshape j flat l|MatMul l w y";

    fn attention() -> Vec<u8> {
        let mut body = Vec::new();
        for line in NODES.split('|') {
            let (line, order) = line.split_once(" 0").map_or((line, None), |(line, order)| (line, Some(order)));
            let words: Vec<&str> = line.split(' ').collect();
            let [operator, inputs @ .., made] = words.as_slice() else { panic!("{line}") };
            let order =
                order.map(|o| [0].into_iter().chain(o.bytes().map(|b| i64::from(b - b'0'))).collect::<Vec<_>>());
            let made = node(operator, inputs, made, order.iter().map(|order| ints("perm", order)).collect());
            field(&mut body, 1, &made.encode_to_vec());
        }
        let list = |list: &[i64]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let ones = [1f32; 1024].iter().flat_map(|n| n.to_le_bytes()).collect();
        for (name, dims, dtype, raw_data) in [
            ("w", vec![32, 32], DType::F32, ones),
            ("heads", vec![4], DType::I64, list(&[1, 4, 4, 8])),
            ("flat", vec![3], DType::I64, list(&[1, 4, 32])),
        ] {
            let (name, data_type) = (name.to_owned(), dtype.to_onnx());
            let tensor = TensorValues { dims, data_type, name, raw_data, ..TensorValues::default() };
            field(&mut body, 5, &tensor.encode_to_vec());
        }
        for (number, name) in [(11, "x"), (12, "y")] {
            field(&mut body, number, &graph::value_info(name, DType::F32, &[1, 4, 32]).encode_to_vec());
        }
        let set = OperatorSetProto { version: 17, ..OperatorSetProto::default() };
        let mut file = ModelProto { ir_version: 8, opset_import: vec![set], ..ModelProto::default() }.encode_to_vec();
        field(&mut file, 7, &body);
        file
    }

    #[test]
    fn products_of_one_factor_share_it_and_attention_is_seen_through_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        std::fs::create_dir(&old).expect("a folder");
        std::fs::write(old.join("model.onnx"), attention()).expect("a file");
        let open = |place: &Path| GraphFile::open(&place.join("model.onnx")).expect("a graph");
        let write = |from: &Path, to: &Path| {
            let (kind, graph) = (ComponentKind::Unet, open(from));
            let (config, roles) = Default::default();
            let component = Component { kind, graph, config, config_path: None, roles };
            let cancel = Cancel::new();
            let to = Destination { model: from, room: to, cancel: &cancel };
            graph::write(&to, &component, WeightFormat::DynamicInt8, &mut |_| ())
        };
        let outcome = write(&old, &new).expect("a graph");
        assert_eq!((outcome.tensors, outcome.unknown, outcome.largest_error), (1, 0, 0.0));

        let narrow = open(&new);
        let count = |name: &str| narrow.operators.iter().find(|(o, _)| o.name == name).map(|(_, &count)| count);
        let counts = ["DynamicQuantizeLinear", "MatMulInteger", "MatMul"].map(count);
        assert_eq!(counts, [Some(2), Some(4), Some(2)]);
        let report = rewrite(&narrow, &[Pass::Attention], &[]).expect("a graph").expect("a place").report;
        assert_eq!(report, [(Pass::Attention, 1)]);
        // 32×32 values of 1 byte and 32 scales; queries, keys, values and the attention's result, 4×32 values each.
        let told = footprint(&narrow, &[Pass::Attention], &[]).expect("a graph");
        assert_eq!(
            told,
            Some(Footprint {
                weights: 32 * 32 + 32 * 4,
                activations: 4 * 4 * 32 * 4,
                in_place: 4 * 4 * 32 * 4,
                unknown: 0,
            })
        );

        let again = write(&new, folder.path()).expect_err("products of 8 bits").to_string();
        assert!(again.contains("already uses 8-bit products"), "{again}");
    }
}
