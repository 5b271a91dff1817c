//! Which scheduler a request runs on.

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::scheduler::{self, Config, Scheduler};
use crate::spec::Spec;

/// The scheduler of a request: whose class, from which configuration.
#[derive(Clone)]
pub struct SchedulerChoice {
    /// The name under which it was asked for, which may stand for keys of its own (`DPM++ 2M Karras`).
    pub name: String,
    /// Its row of the table.
    pub entry: &'static scheduler::Entry,
    /// The model's scheduler_config.json, with `[model] prediction_type` over it.
    pub model: Config,
    /// The pipeline's table, which goes over it.
    pub table: Config,
}

impl std::fmt::Debug for SchedulerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerChoice").field("name", &self.name).field("table", &self.table).finish_non_exhaustive()
    }
}

impl SchedulerChoice {
    /// The pipeline's scheduler, or else the model's own.
    pub(super) fn new(spec: &Spec, bundle: &Bundle) -> Result<Self> {
        let names = || scheduler::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let model = bundle.scheduler.as_ref();
        let (wanted, table) = match (&spec.scheduler, model) {
            (Some(chosen), _) => (chosen.name.as_str(), chosen.table.clone()),
            (None, Some(file)) => match &file.class {
                Some(class) => (class.as_str(), Config::new()),
                None => {
                    return Err(Error::model(
                        &file.path,
                        "names no scheduler class (_class_name), and neither does model_index.json",
                        format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
                    ));
                }
            },
            (None, None) => {
                return Err(Error::model(
                    bundle.dir.join("scheduler/scheduler_config.json"),
                    "missing, and the pipeline names no scheduler",
                    format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
                ));
            }
        };
        let Some(entry) = scheduler::find(wanted) else {
            let path = model.map_or_else(|| bundle.dir.clone(), |file| file.path.clone());
            return Err(Error::model(
                path,
                format!("scheduler class {wanted} is not known"),
                format!("name another in the pipeline file: [scheduler.NAME] with a name of {}", names()),
            ));
        };
        let mut config = model.map(|file| file.config.clone()).unwrap_or_default();
        if let Some(prediction) = &spec.model.prediction_type {
            config.insert("prediction_type".to_owned(), prediction.clone().into());
        }
        Ok(Self { name: wanted.to_owned(), entry, model: config, table })
    }

    /// Builds the schedule of a run.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the key at fault.
    pub fn build(&self, request: &scheduler::Request) -> Result<Box<dyn Scheduler>> {
        scheduler::build(&self.name, Some(&self.model), &self.table, request)
    }
}
