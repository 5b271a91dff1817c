//! The control networks of a run.

use std::collections::BTreeMap;

use super::part::{Part, between_whole_times, part};
use super::sources::ModelSources;
use crate::bundle::{Bundle, Component, ComponentKind, ControlNetSignature, DenoiserSignature, Role};
use crate::denoise::{ControlWeight, RunInterval};
use crate::error::{Error, Result};
use crate::spec::{self, Spec};
use crate::task::InputImage;
use crate::tensor::{Dim, TensorInfo};

/// A control network and the image it follows.
#[derive(Debug, Clone)]
pub struct ControlPart {
    /// The graph.
    pub part: Part<ControlNetSignature>,
    /// The image.
    pub image: InputImage,
    /// Its scale, and the part of the run it is active in.
    pub weight: ControlWeight,
}

impl ControlPart {
    /// Resolves the control networks of a pipeline.
    pub(super) fn all(
        spec: &Spec,
        (bundle, sources): (&Bundle, &ModelSources),
        denoiser: &Component,
        signature: &DenoiserSignature,
    ) -> Result<Vec<Self>> {
        let (controls, limit) = (&spec.controls, spec.run.input_limit());
        // Those that the pipeline file gives to inputs.
        let component = spec.model.components.get(&ComponentKind::ControlNet);
        let roles = &component.map(|component| component.inputs.clone()).unwrap_or_default();
        if controls.is_empty() && !signature.residuals.is_empty() {
            let names: Vec<&str> = signature.residuals.down.iter().take(1).map(|info| info.name.as_str()).collect();
            return Err(Error::model(
                &denoiser.graph.path,
                format!(
                    "was exported for control networks (input {} and its like), and none is given",
                    names.join(", ")
                ),
                "add a [[control]] table with an image, or name the graph that was exported without: [model.unet] graph",
            ));
        }
        let parts = controls.iter().enumerate();
        let parts = parts.map(|(at, control)| Self::new(at, control, roles, (bundle, sources), denoiser, signature));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        for control in controls {
            control.image.dimensions(None, limit)?;
        }
        let graphs = || parts.iter().map(|part: &Self| &part.part.graph).chain([&denoiser.graph]);
        let lacks = |name: &&String| graphs().all(|graph| graph.input(name).is_none());
        match roles.keys().find(lacks).filter(|_| !controls.is_empty()) {
            Some(name) => Err(Error::input(
                format!("model.controlnet.inputs.{name}"),
                "no control network of this pipeline has such an input",
                "write an input's name as `ldm-ort inspect` shows it",
            )),
            None => Ok(parts),
        }
    }

    fn new(
        at: usize,
        control: &spec::ControlSpec,
        roles: &BTreeMap<String, String>,
        (bundle, sources): (&Bundle, &ModelSources),
        denoiser: &Component,
        signature: &DenoiserSignature,
    ) -> Result<Self> {
        let opened;
        let component = match &control.path {
            Some(path) => {
                opened = sources.controlnet(path, roles)?;
                opened.as_ref()
            }
            None => bundle.component(ComponentKind::ControlNet).ok_or_else(|| {
                Error::input(
                    format!("control[{at}].path"),
                    format!("missing, and {} holds no control network", bundle.dir.display()),
                    "name the directory of the control network",
                )
            })?,
        };
        let mut network = ControlNetSignature::resolve(component)?;
        let edits = between_whole_times(&component.graph, &mut network.timestep);
        check_fit(component, &network, denoiser, signature)?;
        Ok(Self {
            part: Part { edits, ..part(component, network) },
            image: control.image.clone(),
            weight: ControlWeight {
                scale: control.scale.unwrap_or(1.0),
                share: RunInterval { start: control.start, end: control.end },
                guess: control.guess_mode,
            },
        })
    }
}

/// Checks that the denoiser takes the network's residuals.
fn check_fit(
    component: &Component,
    network: &ControlNetSignature,
    denoiser: &Component,
    signature: &DenoiserSignature,
) -> Result<()> {
    if signature.residuals.is_empty() {
        return Err(Error::model(
            &denoiser.graph.path,
            "has no inputs for a control network's residuals",
            "export it with them: scripts/export.py --controlnet FOLDER",
        ));
    }
    let fits = network.down.len() == signature.residuals.down.len()
        && network.down.iter().zip(&signature.residuals.down).all(|(given, taken)| same_channels(given, taken));
    if !fits {
        return Err(Error::model(
            &component.graph.path,
            format!(
                "gives residuals of {} channels, and {} takes {}",
                channels(&network.down),
                denoiser.kind,
                channels(&signature.residuals.down)
            ),
            "the control network was trained for a model of another family",
        ));
    }
    let width = |inputs: &BTreeMap<Role, TensorInfo>| inputs.get(&Role::Context)?.shape.get(2)?.fixed();
    if let (Some(a), Some(b)) = (width(&network.inputs), width(&signature.inputs))
        && a != b
    {
        return Err(Error::model(
            &component.graph.path,
            format!("attends to tokens of width {a}, and {} to tokens of width {b}", denoiser.kind),
            "the control network was trained for a model of another family",
        ));
    }
    Ok(())
}

fn same_channels(given: &TensorInfo, taken: &TensorInfo) -> bool {
    let of = |info: &TensorInfo| info.shape.get(1).and_then(Dim::fixed);
    of(given).zip(of(taken)).is_none_or(|(given, taken)| given == taken)
}

fn channels(places: &[TensorInfo]) -> String {
    let of = |info: &TensorInfo| info.shape.get(1).map(ToString::to_string).unwrap_or_default();
    places.iter().map(of).collect::<Vec<_>>().join(", ")
}
