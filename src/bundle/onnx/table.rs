//! The token embedding table of a text encoder.

use ndarray::Array2;

use super::module_weights::{ModuleWeight, ModuleWeights, map};
use super::modules::WeightReader;
use super::trace::Trace;
use super::{GraphFile, frame};
use crate::error::{Error, Result};
use crate::tensor::{Field, Weight, WeightLocation, WeightValues};

/// The table indexed by an input's values: one row per token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenTable {
    weight: ModuleWeight,
    /// The number of rows.
    pub rows: usize,
    /// The number of values in a row.
    pub width: usize,
}

impl TokenTable {
    /// Finds the table indexed by the values of `input`; `None` if the graph stores none with two axes.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Model`] if it changed since `graph` was opened.
    pub fn find(graph: &GraphFile, input: &str) -> Result<Option<Self>> {
        let weights = ModuleWeights::open_for(graph, |parsed| {
            let table = Trace::new(parsed).table(input);
            let at = table.and_then(|table| parsed.initializer.iter().position(|stored| stored.name == table.name));
            at.map(|initializer| WeightReader { module: input.to_owned(), initializer, transposed: false })
                .into_iter()
                .collect()
        })?;
        Ok(match weights.modules.as_slice() {
            [weight] => match *weight.shape.as_slice() {
                [rows, width] => Some(Self { weight: weight.clone(), rows, width }),
                _ => None,
            },
            _ => None,
        })
    }

    /// Creates the weight with which a session appends the rows of `more`, `[n, width]`, to the table.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Model`] if it changed since `graph` was opened, or if the table
    /// has an unsupported type.
    pub fn append_rows(&self, graph: &GraphFile, more: &Array2<f32>) -> Result<Weight> {
        let weights = ModuleWeights::open_for(graph, |_| Vec::new())?;
        let mut values = weights.read(&self.weight)?;
        values.extend(more);
        let unusable = |what: &str| {
            let problem = format!("its token embedding, {}, {what}", self.weight.name);
            Error::model(&graph.path, problem, "use an export in float32 or float16")
        };
        let values = WeightValues::round(values, self.weight.dtype).ok_or_else(|| unusable("is not floating-point"))?;
        let place =
            place(&map(&graph.path)?, &self.weight.name).ok_or_else(|| unusable("cannot be found in the file"))?;
        Ok(Weight {
            name: self.weight.name.clone(),
            shape: vec![self.rows + more.nrows(), self.width],
            values,
            location: place,
        })
    }
}

/// Returns the locations of the graph's message and of that of the initializer `name` in a file.
fn place(file: &[u8], name: &str) -> Option<WeightLocation> {
    /// Field numbers of `ModelProto` and `GraphProto`, and of the name in `TensorProto`.
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    const NAME: u64 = 8;
    let within = |message: std::ops::Range<usize>, number: u64| {
        let mut found: Vec<Field> = Vec::new();
        frame::whole_fields(file, message, |field, whole| found.extend((field == number).then_some(whole)))?;
        Some(found)
    };
    let [graph] = within(0..file.len(), GRAPH)?.try_into().ok()?;
    let tensor = within(graph.body..graph.end, INITIALIZER)?.into_iter().find(|tensor| {
        let named = within(tensor.body..tensor.end, NAME).unwrap_or_default();
        named.iter().any(|field| file.get(field.body..field.end) == Some(name.as_bytes()))
    })?;
    Some(WeightLocation::Resized { graph, tensor })
}
