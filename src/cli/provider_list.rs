//! `ldm-ort list providers`.

use serde_json::{Value, json};

use super::table::{heading, listed};
use crate::error::Result;
use crate::session::{PROVIDERS, Provider, ProviderDevice, ProviderPlace, ProviderStatus, Runtime, provider_statuses};

/// Lists the providers as text: usable or not, the part of the installation that has them, their libraries and devices.
pub(super) fn providers(runtime: &Result<Runtime>) -> String {
    let mut rows = vec![heading(["name", "usable", "from", "about"])];
    match runtime {
        Ok(runtime) => {
            rows.extend(provider_statuses(runtime).iter().flat_map(status_rows));
            format!(
                "{}\nfrom: runtime, if it is part of the ONNX Runtime in use; plugin, if it is in a library of its own.\n",
                listed(&rows)
            )
        }
        Err(error) => {
            rows.extend(PROVIDERS.iter().map(|p| [p.name.into(), "no".into(), "-".into(), p.about.into()]));
            format!("{}\nNone can be used without ONNX Runtime.\n{error}\n", listed(&rows))
        }
    }
}

fn status_rows(status: &ProviderStatus) -> Vec<[String; 4]> {
    let usable = if status.obstacle.is_none() { "yes" } else { "no" };
    let place = match status.place {
        Some(ProviderPlace::Runtime) => "runtime",
        Some(ProviderPlace::Plugin) => "plugin",
        None => "-",
    };
    let mut rows = vec![[status.name.clone(), usable.into(), place.into(), status.about.clone()]];
    let (problem, help) = status.obstacle.clone().unwrap_or_default();
    let libraries = status.libraries.iter().map(|file| format!("library: {}", file.display()));
    let devices = status.devices.iter().map(device);
    let texts = libraries.chain(devices).chain(problem.lines().chain(help.lines()).map(|line| line.trim().to_owned()));
    rows.extend(texts.map(|text| [String::new(), String::new(), String::new(), format!("  {text}")]));
    rows
}

fn device(device: &ProviderDevice) -> String {
    let memory = device.memory().map(|size| format!(", memory {size}")).unwrap_or_default();
    format!("device: {}{memory}", device.name())
}

/// Lists the providers as JSON.
pub(super) fn providers_json(runtime: &Result<Runtime>) -> Value {
    match runtime {
        Ok(runtime) => provider_statuses(runtime).iter().map(status_json).collect(),
        Err(error) => PROVIDERS.iter().map(|provider| unusable_json(provider, &error.to_string())).collect(),
    }
}

fn status_json(status: &ProviderStatus) -> Value {
    let device = |device: &ProviderDevice| {
        json!({
            "name": device.name(),
            "kind": device.kind,
            "vendor": device.vendor,
            "memory": device.memory(),
            "metadata": device.metadata,
        })
    };
    json!({
        "name": status.name,
        "aliases": status.aliases,
        "about": status.about,
        "usable": status.obstacle.is_none(),
        "from": status.place,
        "libraries": status.libraries,
        "devices": status.devices.iter().map(device).collect::<Vec<_>>(),
        "problem": status.obstacle.as_ref().map(|(problem, _)| problem),
        "help": status.obstacle.as_ref().map(|(_, help)| help),
    })
}

fn unusable_json(provider: &Provider, problem: &str) -> Value {
    json!({
        "name": provider.name,
        "aliases": provider.aliases,
        "about": provider.about,
        "usable": false,
        "from": null,
        "libraries": [],
        "devices": [],
        "problem": problem,
        "help": "",
    })
}
