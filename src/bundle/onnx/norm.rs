//! The layer norm before a graph's output, read from the graph.

use super::GraphFile;
use super::module_weights::ModuleWeights;
use super::modules::WeightReader;
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::trace::Trace;
use crate::error::Result;

/// A layer norm (Ba et al. 2016, arXiv 1607.06450): `(x − mean) / sqrt(variance + epsilon) · scale + bias` over the
/// last axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// One value per channel.
    pub scale: Vec<f32>,
    /// One value per channel.
    pub bias: Vec<f32>,
    /// The value that keeps the root from being zero.
    pub epsilon: f32,
}

/// The epsilon of CLIP's and BERT-like text encoders if the graph does not state it in one place.
const EPSILON: f32 = 1e-5;

impl LayerNorm {
    /// Reads the layer norm that computes the output `output`, in any form that exporters write; `None` if there is no
    /// layer norm with stored parameters.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file cannot be read; [`Error::Model`](crate::Error::Model) if it changed
    /// since `graph` was opened, or if the parameters have an unsupported type.
    pub fn from_graph(graph: &GraphFile, output: &str) -> Result<Option<Self>> {
        let mut epsilon = EPSILON;
        let weights = ModuleWeights::open_for(graph, |parsed| {
            let Some((scale, bias, found)) = find(parsed, output) else { return Vec::new() };
            epsilon = found;
            let reader = |tensor: &TensorProto| {
                let initializer = parsed.initializer.iter().position(|stored| stored.name == tensor.name)?;
                Some(WeightReader { module: output.to_owned(), initializer, transposed: false })
            };
            [scale, bias].into_iter().filter_map(reader).collect()
        })?;
        let [scale, bias] = weights.modules.as_slice() else { return Ok(None) };
        Ok(Some(Self { scale: weights.read(scale)?, bias: weights.read(bias)?, epsilon }))
    }

    /// Normalizes each row of `width` values, the width of the norm.
    pub fn apply(&self, values: &mut [f32]) {
        let width = self.scale.len().max(1);
        for row in values.chunks_exact_mut(width) {
            let n = width as f64;
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
            let by = 1.0 / (variance + f64::from(self.epsilon)).sqrt();
            for ((v, scale), bias) in row.iter_mut().zip(&self.scale).zip(&self.bias) {
                *v = ((f64::from(*v) - mean) * by) as f32 * scale + bias;
            }
        }
    }
}

/// Returns the stored scale and bias of the norm that computes `output`, and its epsilon.
fn find<'g>(graph: &'g GraphProto, output: &str) -> Option<(&'g TensorProto, &'g TensorProto, f32)> {
    let trace = Trace::new(graph);
    let node = trace.maker_behind(output)?;
    let at = |node: &'g NodeProto, i: usize| node.input.get(i).and_then(|name| trace.stored_behind(name));
    let either = |node: &'g NodeProto| match (at(node, 0), at(node, 1)) {
        (Some(stored), None) => Some((stored, node.input.get(1)?)),
        (None, Some(stored)) => Some((stored, node.input.first()?)),
        _ => None,
    };
    let epsilon = node.attribute.iter().find(|a| a.name == "epsilon").map_or(EPSILON, |a| a.f);
    let (scale, bias, epsilon) = match node.op_type.as_str() {
        "LayerNormalization" => (at(node, 1)?, at(node, 2)?, epsilon),
        "SkipLayerNormalization" => (at(node, 2)?, at(node, 3)?, epsilon),
        // Decomposed: … Div, Mul by the scale, Add of the bias.
        "Add" => {
            let (bias, scaled) = either(node)?;
            let scaled = trace.maker_behind(scaled).filter(|node| node.op_type == "Mul")?;
            let (scale, plain) = either(scaled)?;
            trace.maker_behind(plain).filter(|node| node.op_type == "Div")?;
            (scale, bias, EPSILON)
        }
        _ => return None,
    };
    (scale.dims.len() == 1 && scale.dims == bias.dims).then_some((scale, bias, epsilon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_rows() {
        let norm = LayerNorm { scale: vec![1.0, 2.0], bias: vec![0.0, 1.0], epsilon: 0.0 };
        let mut values = [1.0, 3.0, -2.0, -4.0];
        norm.apply(&mut values);
        assert_eq!(values, [-1.0, 3.0, 1.0, -1.0]);
    }

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        let input = input.iter().map(|&name| name.to_owned()).collect();
        NodeProto { op_type: op.into(), input, output: vec![output.into()], ..NodeProto::default() }
    }

    #[test]
    fn finds_norms_however_they_are_written() {
        let tensor = |name: &str| TensorProto { name: name.into(), dims: vec![4], ..TensorProto::default() };
        let initializer = vec![tensor("g"), tensor("b")];
        for nodes in [
            vec![node("LayerNormalization", &["x", "g", "b"], "out")],
            vec![node("LayerNormalization", &["x", "g", "b"], "y"), node("Cast", &["y"], "out")],
            vec![node("SkipLayerNormalization", &["x", "z", "g", "b"], "out")],
            vec![node("Div", &["x", "s"], "d"), node("Mul", &["d", "g"], "m"), node("Add", &["m", "b"], "out")],
            vec![
                node("Identity", &["b"], "copy"),
                node("Div", &["x", "s"], "d"),
                node("Mul", &["g", "d"], "m"),
                node("Add", &["copy", "m"], "out"),
            ],
        ] {
            let graph = GraphProto { node: nodes, initializer: initializer.clone(), ..GraphProto::default() };
            let (scale, bias, _) = find(&graph, "out").unwrap();
            assert_eq!((scale.name.as_str(), bias.name.as_str()), ("g", "b"));
        }
        let nodes = vec![node("Mul", &["x", "g"], "m"), node("Add", &["m", "b"], "out")];
        assert_eq!(find(&GraphProto { node: nodes, initializer, ..GraphProto::default() }, "out"), None);
    }
}
