//! Which classes a class-conditional run draws.

use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use super::part::Part;
use super::sources::ModelSources;
use crate::bundle::{Bundle, ComponentKind, ConditionerSignature, DenoiserSignature};
use crate::error::{Error, Result};
use crate::files::open_input;
use crate::task::{Class, ClassRequest, Classes};

/// Finds the ids of the classes that are asked for.
pub(super) fn resolve(
    task: &str,
    request: ClassRequest<'_>,
    (bundle, sources): (&Bundle, &ModelSources),
    denoiser: &DenoiserSignature,
    embedder: Option<&Part<ConditionerSignature>>,
) -> Result<Classes> {
    let rows = embedder.map_or(denoiser.class_rows, |part| part.signature.rows).or_else(|| stated_rows(bundle));
    let null = null_class(task, request, bundle, rows)?;
    let last = rows
        .map(|rows| rows.saturating_sub(1))
        .map(|last| if null == Some(last) { last.saturating_sub(1) } else { last });
    let names = names(request, bundle, sources)?;
    let mut ids = Vec::with_capacity(request.classes.len());
    for class in request.classes {
        let id = match class {
            Class::Id(id) => *id,
            Class::Name(name) => id_of(task, name, &names)?,
        };
        if let Some(last) = last.filter(|&last| id > last) {
            return Err(Error::input(
                format!("task.{task}.class"),
                format!("class {id} is asked for, and the model knows classes 0 to {last}"),
                "choose one of those",
            ));
        }
        ids.push(id as i64);
    }
    Ok(Classes { ids, null: null.unwrap_or(0) as i64 })
}

/// The number of classes that the class embedder's or the denoiser's configuration states.
fn stated_rows(bundle: &Bundle) -> Option<usize> {
    let count = |kind: ComponentKind, key: &str| {
        bundle.component(kind)?.config.get(key)?.as_u64().map(|n| n as usize).filter(|&n| n > 0)
    };
    count(ComponentKind::ClassEmbedder, "n_classes").or_else(|| count(ComponentKind::Unet, "num_class_embeds"))
}

/// The class that stands for none, where guidance needs one.
fn null_class(task: &str, request: ClassRequest<'_>, bundle: &Bundle, rows: Option<usize>) -> Result<Option<usize>> {
    let stated = [ComponentKind::ClassEmbedder, ComponentKind::Unet]
        .into_iter()
        .find_map(|kind| bundle.component(kind)?.config.get("null_class")?.as_u64());
    let null = request.null_class.or(stated.map(|n| n as usize));
    match (null, rows) {
        (Some(null), Some(rows)) if null >= rows => Err(Error::input(
            format!("task.{task}.null_class"),
            format!("{null} is not one of the {rows} rows of the model's table of classes"),
            "the null class is usually the last of them",
        )),
        (None, _) if request.guidance_scale > 1.0 => Err(Error::input(
            format!("task.{task}.guidance_scale"),
            format!(
                "{} is guidance away from the null class, and nothing says which class that is",
                request.guidance_scale
            ),
            "give null_class (1000 for the paper's guided ImageNet model), or set guidance_scale = 1.0",
        )),
        _ => Ok(null),
    }
}

/// The names of the classes by id, from the file that the pipeline names or from the model directory.
fn names(request: ClassRequest<'_>, bundle: &Bundle, sources: &ModelSources) -> Result<Vec<String>> {
    let beside = bundle.dir.join("classes.txt");
    let lines = |path: &PathBuf| {
        let mut text = String::new();
        open_input(path)?.read_to_string(&mut text).map_err(|e| Error::io(path, "reading", e))?;
        Ok::<_, Error>(text.lines().map(|line| line.trim().to_owned()).collect())
    };
    if let Some(path) = request.class_names {
        return sources.class_names(path, lines).map(|names| names.to_vec());
    }
    let own = sources.class_names(&beside, |path| if path.is_file() { lines(path) } else { Ok(Vec::new()) })?;
    if !own.is_empty() {
        return Ok(own.to_vec());
    }
    let Some(Value::Object(labels)) = bundle.index.get("id2label") else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for (id, name) in labels {
        let (Ok(id), Some(name)) = (id.parse::<usize>(), name.as_str()) else { continue };
        if id < 1_000_000 {
            names.resize(names.len().max(id + 1), String::new());
            name.clone_into(&mut names[id]);
        }
    }
    Ok(names)
}

/// A class goes by its whole name or by one of several between commas, in capitals or not.
fn id_of(task: &str, name: &str, names: &[String]) -> Result<usize> {
    let wanted = name.trim().to_lowercase();
    let goes_by = |known: &String| {
        let known = known.to_lowercase();
        known == wanted || known.split(',').any(|one| one.trim() == wanted)
    };
    if let Some(id) = names.iter().position(goes_by) {
        return Ok(id);
    }
    let near: Vec<&str> =
        names.iter().filter(|known| known.to_lowercase().contains(&wanted)).take(3).map(String::as_str).collect();
    Err(Error::input(
        format!("task.{task}.class"),
        match names.len() {
            0 => format!("{name:?} is a name, and the model directory names no classes"),
            count => format!("{name:?} is none of the {count} classes"),
        },
        match (names.is_empty(), near.is_empty()) {
            (true, _) => "give an id, or a file of names: class_names = \"classes.txt\"".to_owned(),
            (false, true) => format!("the first are {}", names[..names.len().min(5)].join(", ")),
            (false, false) => format!("did you mean {}?", near.join(" or ")),
        },
    ))
}
