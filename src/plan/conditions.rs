//! The graphs and the inputs of the `[[condition]]` tables.

use super::part::{Part, part};
use super::sources::ModelSources;
use crate::bundle::{Bundle, Component, ComponentKind, ConditionerSignature};
use crate::conditioner::{ConditionSource, ConditionSpec, Conditioning, Graph, layout};
use crate::error::{Error, Result};
use crate::image::InputLimit;
use crate::task::{check_labels, things};
use crate::tensor::Dim;
use crate::{files, image, npy};

/// A condition with the graph that makes tensors of it.
#[derive(Debug, Clone)]
pub struct ConditionPart {
    /// Where it comes from and how the denoiser is told.
    pub condition: ConditionSpec,
    /// The graph, where there is one.
    pub part: Option<Part<ConditionerSignature>>,
    /// The number of classes or labels that the graph knows, where anything says so.
    pub known: Option<usize>,
}

impl ConditionPart {
    /// Resolves the conditions of a pipeline.
    pub(super) fn all(
        conditions: &[ConditionSpec],
        (bundle, sources): (&Bundle, &ModelSources),
        limit: InputLimit,
    ) -> Result<Vec<Self>> {
        let conditions = conditions.iter().enumerate();
        conditions.map(|(at, condition)| Self::new(at, condition, (bundle, sources), limit)).collect()
    }

    fn new(
        at: usize,
        condition: &ConditionSpec,
        (bundle, sources): (&Bundle, &ModelSources),
        limit: InputLimit,
    ) -> Result<Self> {
        match &condition.source {
            ConditionSource::DepthMap(path) => drop(image::dimensions(path, limit)?),
            ConditionSource::Vectors(path) => drop(npy::read_f32(path)?),
            ConditionSource::Index { path, .. } => drop(files::open_input(path)?),
            ConditionSource::Boxes(_) | ConditionSource::LabelMap(_) => {}
        }
        let Some(graph) = &condition.graph else {
            return Ok(Self { condition: condition.clone(), part: None, known: None });
        };
        let path = match graph {
            Graph::Folder(name) => bundle.dir.join(name),
            Graph::Path(path) => path.clone(),
        };
        let component = sources.conditioner(at, path)?;
        let signature = ConditionerSignature::resolve(&component)?;
        let rank = match condition.source {
            ConditionSource::Boxes(_) => 2,
            ConditionSource::LabelMap(_) | ConditionSource::DepthMap(_) => 4,
            ConditionSource::Vectors(_) | ConditionSource::Index { .. } => 3,
        };
        if signature.input.shape.len() != rank {
            return Err(Error::model(
                &component.graph.path,
                format!(
                    "input {} has {} axes, and such a condition has {rank}",
                    signature.input,
                    signature.input.shape.len()
                ),
                "name the graph that was exported for this condition",
            ));
        }
        let known = known(&component, &signature);
        match &condition.source {
            ConditionSource::Boxes(boxes) => drop(layout::tokens(&things(boxes), known)?),
            ConditionSource::LabelMap(path) => check_labels(path, &image::load_labels(path, limit)?, known)?,
            ConditionSource::DepthMap(_) | ConditionSource::Vectors(_) | ConditionSource::Index { .. } => {}
        }
        Ok(Self { condition: condition.clone(), known, part: Some(part(&component, signature)) })
    }

    /// The channels that the denoiser is told, where they are known.
    pub(super) fn channels(&self) -> usize {
        let is_channels = self.condition.conditioning == Conditioning::Channels;
        if let ConditionSource::DepthMap(_) = self.condition.source {
            return 1;
        }
        let given = self.part.as_ref().and_then(|part| part.signature.output.shape.get(1)?.fixed());
        given.filter(|_| is_channels).unwrap_or(0)
    }

    /// Whether it tells the denoiser tokens.
    pub(super) fn is_tokens(&self) -> bool {
        self.condition.conditioning == Conditioning::CrossAttention
    }
}

/// The width and height of the first label map, which the image then has.
pub(super) fn natural_size(conditions: &[ConditionSpec], limit: InputLimit) -> Result<Option<(usize, usize)>> {
    let path = conditions.iter().find_map(|condition| match &condition.source {
        ConditionSource::LabelMap(path) => Some(path),
        _ => None,
    });
    path.map(|path| image::load_labels(path, limit).map(|map| (map.width, map.height))).transpose()
}

fn known(component: &Component, signature: &ConditionerSignature) -> Option<usize> {
    debug_assert_eq!(component.kind, ComponentKind::Conditioner);
    let stated = |key: &str| component.config.get(key)?.as_u64().map(|n| n as usize);
    let labels = || signature.input.shape.get(1).and_then(Dim::fixed).filter(|_| signature.input.shape.len() == 4);
    stated("n_classes").or_else(|| stated("n_labels")).or_else(labels)
}
