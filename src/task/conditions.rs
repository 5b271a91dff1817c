//! The inputs that the `[[condition]]` tables add to those of the task.

use std::io::Read;
use std::path::Path;

use ndarray::{Array2, ArrayD, ArrayView1, Axis, IxDyn, concatenate, stack};
use safetensors::SafeTensors;

use super::context::{InputRequirements, Start};
use crate::bundle::Role;
use crate::conditioner::{ConditionSource, ConditionSpec, Conditioner, Conditioning, LayoutBox, layout};
use crate::denoise::GuidanceBranch;
use crate::error::{Error, Result};
use crate::files::open_input;
use crate::guard::contain;
use crate::image::{self, InputLimit, LabelMap};
use crate::npy;
use crate::session::Cancel;
use crate::tensor::{DType, Tensor};

/// A condition, ready to be told.
pub struct PreparedCondition<'a> {
    /// Its source and the denoiser's input for it.
    pub condition: &'a ConditionSpec,
    /// The graph that makes tensors of it, where there is one.
    pub graph: Option<&'a mut Conditioner>,
    /// The number of classes or labels that the graph knows, where that is known.
    pub known: Option<usize>,
    /// The largest image that is read.
    pub limit: InputLimit,
}

impl Start {
    /// Adds conditions to what `images` images of `size` pixels are told. The branches of guidance that are not told
    /// the prompt are told zeros in place of tokens, and those that are told no image zeros in place of channels.
    ///
    /// # Errors
    /// [`Error::Input`] where a condition cannot be read or does not fit, and whatever its graph fails with.
    pub fn tell(
        &mut self,
        conditions: Vec<PreparedCondition<'_>>,
        images: usize,
        size: (usize, usize),
        cancel: &Cancel,
    ) -> Result<()> {
        let latent = self.sample.shape().last_chunk::<2>().copied().unwrap_or_default();
        for (at, given) in conditions.into_iter().enumerate() {
            let conditioning = given.condition.conditioning;
            let context = self.condition.get(Role::Context);
            let rows = given.rows(at, context, self.guidance.branches().len() * images, (size, latent), cancel)?;
            let is_told = |branch: &GuidanceBranch| {
                if conditioning == Conditioning::CrossAttention { branch.prompt } else { branch.image }
            };
            let branches = self.guidance.branches().iter().flat_map(|b| std::iter::repeat_n(is_told(b), images));
            let told: Vec<ArrayD<f32>> =
                branches.zip(rows).map(|(told, row)| if told { row } else { ArrayD::zeros(row.raw_dim()) }).collect();
            let views: Vec<_> = told.iter().map(|row| row.view()).collect();
            let misfit = |what: &str| {
                let key = format!("condition[{at}]");
                Error::input(key, format!("its {what} do not fit those told before"), "are all of one model?")
            };
            let all = stack(Axis(0), &views).map_err(|_| misfit("rows"))?;
            let mask = self.condition.inputs.get_mut(&Role::ContextMask);
            if let (Conditioning::CrossAttention, Some(mask)) = (conditioning, mask) {
                let of_all = ArrayD::ones(IxDyn(&all.shape()[..2]));
                *mask = concatenate(Axis(1), &[mask.view(), of_all.view()]).map_err(|_| misfit("tokens"))?;
            }
            let (before, what) = match conditioning {
                Conditioning::CrossAttention => (self.condition.inputs.remove(&Role::Context), "tokens"),
                Conditioning::Channels => (self.condition.channels.take(), "channels"),
            };
            let joined = match before {
                Some(before) => concatenate(Axis(1), &[before.view(), all.view()]).map_err(|_| misfit(what))?,
                None => all,
            };
            match conditioning {
                Conditioning::CrossAttention => self.condition.set(Role::Context, joined),
                Conditioning::Channels => self.condition.channels = Some(joined),
            }
        }
        Ok(())
    }
}

impl PreparedCondition<'_> {
    /// Returns the value of each row: `[tokens, width]` or `[c, h, w]`.
    fn rows(
        self,
        at: usize,
        context: Option<&ArrayD<f32>>,
        rows: usize,
        (size, latent): ((usize, usize), [usize; 2]),
        cancel: &Cancel,
    ) -> Result<Vec<ArrayD<f32>>> {
        let key = |name: &str| format!("condition[{at}].{name}");
        let made = match &self.condition.source {
            ConditionSource::Boxes(boxes) => {
                let tokens = layout::tokens(&things(boxes), self.known)?;
                Tensor::I64(ndarray::Array1::from(tokens).insert_axis(Axis(0)).into_dyn())
            }
            ConditionSource::LabelMap(path) => Tensor::F32(one_hot(path, size, self.known, self.limit)?),
            ConditionSource::DepthMap(path) => Tensor::F32(depth(path, latent, self.limit)?),
            ConditionSource::Vectors(path) => Tensor::F32(vectors(path)?.insert_axis(Axis(0))),
            ConditionSource::Index { path, k } => {
                let Some(context) = context else {
                    return Err(Error::input(
                        key("index"),
                        "the neighbours are those of a prompt, and this task has none",
                        "choose [task.text-to-image], or give the neighbours themselves: vectors",
                    ));
                };
                let index = index(path)?;
                return context
                    .outer_iter()
                    .map(|row| {
                        let Some(query) = row.outer_iter().next() else {
                            return Err(Error::input(
                                key("index"),
                                "the prompt has no token to seek by",
                                "give a prompt",
                            ));
                        };
                        let query =
                            query.into_dimensionality().map_err(|e| Error::input(key("index"), e.to_string(), ""))?;
                        nearest(&index, query, *k, path)
                    })
                    .collect();
            }
        };
        let told = match self.graph {
            Some(graph) => graph.run(&made, cancel)?,
            None => match made {
                Tensor::F32(told) => told,
                other => {
                    return Err(Error::input(
                        key("graph"),
                        format!("missing for {:?}", other.shape()),
                        "name the graph that makes tokens of it",
                    ));
                }
            },
        };
        let row = told.index_axis(Axis(0), 0).to_owned();
        Ok(vec![row; rows])
    }
}

/// Reads the file that a condition comes from, and requires that it fits the run.
///
/// # Errors
/// [`Error::Input`] naming the file.
pub fn check_condition(condition: &ConditionSpec, run: &InputRequirements) -> Result<()> {
    let [_, height, width] = run.sample;
    match &condition.source {
        ConditionSource::Boxes(_) | ConditionSource::LabelMap(_) => Ok(()),
        ConditionSource::DepthMap(path) => depth(path, [height, width], run.limit).map(drop),
        ConditionSource::Vectors(path) => vectors(path).map(drop),
        ConditionSource::Index { path, k } => {
            let index = index(path)?;
            let width = index.ncols();
            nearest(&index, ndarray::Array1::zeros(width).view(), *k, path).map(drop)
        }
    }
}

/// The boxes of a pipeline file as a layout takes them.
pub fn things(boxes: &[LayoutBox]) -> Vec<layout::LayoutObject> {
    let thing = |written: &LayoutBox| {
        let bits = written.modifiers().iter().enumerate().map(|(bit, (_, on))| usize::from(*on) << bit).sum();
        layout::LayoutObject { class: written.class, place: written.place, modifiers: bits }
    };
    boxes.iter().map(thing).collect()
}

/// The most planes that are made of a label map; its labels are bytes.
const MOST_LABELS: usize = 1024;

/// Requires that a map holds only labels that the model knows, and that it is known how many those are.
///
/// # Errors
/// [`Error::Input`] naming the map and the label, or the file that should say how many there are.
pub fn check_labels(path: &Path, map: &LabelMap, known: Option<usize>) -> Result<()> {
    let fail = |problem: String, help: &str| Err(Error::input(path.display().to_string(), problem, help));
    let Some(count) = known else {
        return fail("nothing says how many labels there are".into(), "write n_labels into the graph's config.json");
    };
    if count > MOST_LABELS {
        return fail(
            format!("the model is said to know {count} labels, and a map has planes for {MOST_LABELS} at most"),
            "correct n_labels in the graph's config.json",
        );
    }
    match map.labels.iter().find(|&&label| usize::from(label) >= count) {
        None => Ok(()),
        Some(beyond) => fail(
            format!("holds label {beyond}, and the model knows labels 0 to {}", count.saturating_sub(1)),
            "number the labels as the model does",
        ),
    }
}

/// A plane for each label, 1 where it stands: `[1, labels, h, w]`.
fn one_hot(
    path: &Path,
    (width, height): (usize, usize),
    known: Option<usize>,
    limit: InputLimit,
) -> Result<ArrayD<f32>> {
    let map = image::load_labels(path, limit)?.resize(width, height);
    check_labels(path, &map, known)?;
    let count = known.unwrap_or_default();
    let mut planes = ArrayD::zeros(IxDyn(&[1, count, height, width]));
    for (pixel, &label) in map.labels.iter().enumerate() {
        planes[[0, usize::from(label), pixel / width, pixel % width]] = 1.0;
    }
    Ok(planes)
}

/// An image of depth at the size of the latents, from −1 to 1: `[1, 1, h/f, w/f]`.
fn depth(path: &Path, [height, width]: [usize; 2], limit: InputLimit) -> Result<ArrayD<f32>> {
    let map = image::resize_bicubic(&image::load_gray(path, limit)?, height, width);
    let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    if low >= high {
        return Err(Error::input(path.display().to_string(), "is of one depth all over", "give a map with some depth"));
    }
    let map = map.mapv(|v| 2.0 * (v - low) / (high - low) - 1.0);
    Ok(map.insert_axis(Axis(0)).insert_axis(Axis(0)).into_dyn())
}

/// `[tokens, width]` of a file; a single vector is one token.
fn vectors(path: &Path) -> Result<ArrayD<f32>> {
    let vectors = npy::read_f32(path)?;
    match vectors.ndim() {
        1 => Ok(vectors.insert_axis(Axis(0))),
        2 => Ok(vectors),
        _ => Err(Error::input(
            path.display().to_string(),
            format!("holds an array of shape {:?}", vectors.shape()),
            "vectors are [tokens, width]",
        )),
    }
}

/// The vectors of an index file, `[n, width]`.
fn index(path: &Path) -> Result<Array2<f32>> {
    let fail = |problem: String| {
        Error::input(
            path.display().to_string(),
            problem,
            "an index is a safetensors file with float32 vectors [n, width]",
        )
    };
    let mut bytes = Vec::new();
    open_input(path)?.read_to_end(&mut bytes).map_err(|e| Error::io(path, "reading", e))?;
    let file = contain(|| SafeTensors::deserialize(&bytes)).map_err(|panic| fail(panic.to_string()))?;
    let file = file.map_err(|e| fail(format!("is no safetensors file: {e}")))?;
    let tensor = file.tensor("vectors").map_err(|_| fail("holds no tensor called vectors".to_owned()))?;
    let &[n, width] = tensor.shape() else { return Err(fail(format!("vectors has shape {:?}", tensor.shape()))) };
    if tensor.dtype() != safetensors::Dtype::F32 {
        return Err(fail(format!("vectors is {:?}, not {}", tensor.dtype(), DType::F32)));
    }
    let values = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Array2::from_shape_vec((n, width), values).map_err(|e| fail(e.to_string()))
}

/// The k vectors with the largest inner products with `query`, the largest first; of equals the earlier first.
fn nearest(index: &Array2<f32>, query: ArrayView1<'_, f32>, k: usize, path: &Path) -> Result<ArrayD<f32>> {
    let (n, width) = index.dim();
    if query.len() != width || n < k {
        return Err(Error::input(
            path.display().to_string(),
            format!("holds {n} vectors of width {width}, and {k} of width {} are wanted", query.len()),
            "make the index with the model's own encoders, or ask for fewer neighbours: k",
        ));
    }
    let mut order: Vec<(usize, f32)> = index.outer_iter().map(|row| row.dot(&query)).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let picks: Vec<usize> = order.iter().take(k).map(|(at, _)| *at).collect();
    Ok(index.select(Axis(0), &picks).into_dyn())
}
