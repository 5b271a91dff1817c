//! An image of a class.

use ndarray::Array1;

use super::{Start, Task, TaskContext, TaskModel};
use crate::bundle::Role;
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::spec::{self, ClassConditional};
use crate::tensor::Tensor;

impl Task for ClassConditional {
    fn name(&self) -> &'static str {
        "class-conditional"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::ClassConditional(self.clone()))
    }

    fn labels(&self) -> Vec<String> {
        self.classes.iter().map(ToString::to_string).collect()
    }

    fn guidance_scale(&self, _model: &TaskModel) -> f64 {
        self.guidance_scale
    }

    fn classes(&self) -> Option<&ClassConditional> {
        Some(self)
    }

    fn tells_class(&self) -> bool {
        true
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = Guidance::classifier_free(self.guidance_scale, 0.0);
        let Some(classes) = &stage.model.classes else {
            return Err(Error::input("task.class-conditional", "this model takes no class", "choose another task"));
        };
        let mut ids = Vec::new();
        for branch in guidance.branches() {
            for &group in stage.prompts {
                let id = if branch.prompt { classes.ids.get(group).copied() } else { None };
                ids.push(id.unwrap_or(classes.null));
            }
        }
        let told = match stage.class_embedder.as_deref_mut() {
            Some(embedder) => {
                let ids = Tensor::I64(Array1::from(ids).into_dyn());
                Condition::of(Role::Context, embedder.run(&ids, stage.cancel)?)
            }
            None => {
                let labels = ids.iter().map(|&id| id as f32).collect::<Array1<f32>>();
                Condition::of(Role::ClassLabels, labels.into_dyn())
            }
        };
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}
