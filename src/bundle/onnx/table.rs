//! The table of vectors that a text encoder looks token ids up in.

use ndarray::Array2;

use super::modules::Reader;
use super::stored::{ModuleWeight, Weights, map};
use super::trace::Trace;
use super::{GraphFile, frame};
use crate::error::{Error, Result};
use crate::tensor::{Field, Weight, WeightLocation, WeightValues};

/// The table that the values of an input index: a row a token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenTable {
    weight: ModuleWeight,
    /// The number of rows.
    pub rows: usize,
    /// The numbers of a row.
    pub width: usize,
}

impl TokenTable {
    /// Finds the table that the values of `input` index; `None` where the graph stores none of two axes.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read; [`Error::Model`] where it has changed since `graph` was opened.
    pub fn of(graph: &GraphFile, input: &str) -> Result<Option<Self>> {
        let weights = Weights::open_for(graph, |parsed| {
            let table = Trace::new(parsed).table(input);
            let at = table.and_then(|table| parsed.initializer.iter().position(|stored| stored.name == table.name));
            at.map(|initializer| Reader { module: input.to_owned(), initializer, transposed: false })
                .into_iter()
                .collect()
        })?;
        Ok(match weights.of_modules.as_slice() {
            [weight] => match *weight.shape.as_slice() {
                [rows, width] => Some(Self { weight: weight.clone(), rows, width }),
                _ => None,
            },
            _ => None,
        })
    }

    /// What a session is opened with so that the table has `more` rows, `[n, width]`, behind its own.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read; [`Error::Model`] where it has changed since `graph` was opened, or
    /// the table is of a type that cannot be read.
    pub fn grown(&self, graph: &GraphFile, more: &Array2<f32>) -> Result<Weight> {
        let weights = Weights::open_for(graph, |_| Vec::new())?;
        let mut values = weights.read(&self.weight)?;
        values.extend(more);
        let unusable = |what: &str| {
            let problem = format!("the table of its tokens, {}, {what}", self.weight.name);
            Error::model(&graph.path, problem, "use an export in float32 or float16")
        };
        let values =
            WeightValues::round(values, self.weight.dtype).ok_or_else(|| unusable("is not of floating point"))?;
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

/// Where the messages of the graph and of the initializer `name` lie in a file.
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
