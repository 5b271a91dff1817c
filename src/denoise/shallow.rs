//! The shallow layers of a UNet as a graph of their own: DeepCache (Ma et al. 2023, arXiv 2312.00858).

use std::ops::Range;

use ndarray::{ArrayD, IxDyn};

use super::graph::Layers;
use crate::session::{GraphRun, Session};
use crate::tensor::TensorView;

/// The shallow layers of a UNet as a graph of their own, and what the deep ones last gave them.
pub struct Shallow<'a> {
    session: &'a mut Session,
    /// The tensor that goes from the deep layers to the shallow ones: an output of the whole graph, an input of this
    /// one.
    tensor: &'a str,
    /// Its inputs, by name.
    inputs: Vec<String>,
    /// The deep layers' outputs, one for each run of the graph in a call.
    given: Vec<ArrayD<f32>>,
    /// The rows of that call, and how many were run at once.
    rows: Option<(Range<usize>, usize)>,
}

impl<'a> Shallow<'a> {
    /// Joins an open graph with the name of the tensor that it takes, and that the whole graph hands out.
    pub fn new(session: &'a mut Session, tensor: &'a str) -> Self {
        let inputs = session.inputs().iter().map(|input| input.name.clone()).collect();
        Self { session, tensor, inputs, given: Vec::new(), rows: None }
    }

    /// True if the deep layers were last run on these rows, so many at once.
    pub(super) fn knows(&self, rows: &(Range<usize>, usize)) -> bool {
        self.rows.as_ref() == Some(rows)
    }

    /// The session of the shallow layers, and the seam between the layers for a call of these rows.
    pub(super) fn begin(&mut self, layers: Layers, rows: (Range<usize>, usize)) -> (&mut Session, Seam<'_>) {
        let Self { session, tensor, inputs, given, rows: of } = self;
        *of = Some(rows);
        (session, Seam { layers, tensor, inputs, given, next: 0 })
    }
}

/// The tensors between deep and shallow layers in the runs of one call.
pub(super) struct Seam<'o> {
    layers: Layers,
    tensor: &'o str,
    inputs: &'o [String],
    given: &'o mut Vec<ArrayD<f32>>,
    /// The runs of this call so far.
    next: usize,
}

impl Seam<'_> {
    /// Has the next runs of the call hand out what the deep layers give, or take what they gave, and nothing that they
    /// do not read.
    pub(super) fn join<'r>(&'r mut self, runs: &mut [GraphRun<'r>]) {
        let first = self.next;
        self.next += runs.len();
        if self.given.len() < self.next {
            self.given.resize_with(self.next, || ArrayD::zeros(IxDyn(&[0])));
        }
        let given = self.given.get_mut(first..self.next).unwrap_or_default();
        for (run, given) in runs.iter_mut().zip(given) {
            match self.layers {
                Layers::All => run.second_output = Some((self.tensor, given)),
                Layers::Shallow => {
                    run.inputs.retain(|(name, _)| self.inputs.iter().any(|input| input == name));
                    run.inputs.push((self.tensor, TensorView::F32(given.view())));
                }
            }
        }
    }
}
