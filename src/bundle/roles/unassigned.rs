//! The search for the input of each role.

use std::collections::BTreeMap;

use super::input_hints::hint;
use super::switch::Switch;
use super::table::{self, Role, RoleRow, role_words};
use super::tensor_forms::describe;
use crate::bundle::component::{Component, ComponentKind};
use crate::error::{Error, Result};
use crate::tensor::{DType, TensorInfo};

/// Boolean inputs that tracing leaves behind, with the values they receive.
const CONSTANTS: [(&str, bool); 6] = [
    ("return_dict", false),
    ("output_hidden_states", true),
    ("output_attentions", false),
    ("use_cache", false),
    ("training", false),
    ("sample_posterior", false),
];

/// The inputs of a graph that have no role yet.
pub(super) struct Unassigned<'a> {
    component: &'a Component,
    left: Vec<&'a TensorInfo>,
    /// The inputs to which the pipeline file assigns a role, by its word.
    mapped: Vec<(&'a str, &'a TensorInfo)>,
    /// The usual names of the roles looked for, for the error about inputs that are left.
    tried: Vec<&'static str>,
}

/// True if these inputs include the positions of a packed sample.
pub(super) fn is_packed(found: &BTreeMap<Role, TensorInfo>) -> bool {
    [Role::ImagePositions, Role::TextPositions].iter().all(|role| found.contains_key(role))
}

impl<'a> Unassigned<'a> {
    pub(super) fn new(component: &'a Component) -> Self {
        let role = |input: &TensorInfo| component.roles.get(&input.name).map(String::as_str);
        let (mapped, left) = component.graph.inputs.iter().partition::<Vec<_>, _>(|input| role(input).is_some());
        let mapped = mapped.into_iter().filter_map(|input| Some((role(input)?, input))).collect();
        Self { component, left, mapped, tried: Vec::new() }
    }

    /// Takes the inputs of all roles that graphs of these kinds have: those with a known name first, then those that
    /// their shape tells.
    pub(super) fn take_roles(&mut self, kinds: &[ComponentKind]) -> BTreeMap<Role, TensorInfo> {
        let rows = || table::rows().filter(|row| row.graphs.iter().any(|graph| kinds.contains(graph)));
        let mut found = BTreeMap::new();
        for row in rows() {
            let is_packed = is_packed(&found);
            if let Some(input) = self.named(row, |info| row.fits(info, is_packed)) {
                found.insert(row.role, input);
            }
        }
        for row in rows().filter(|row| row.needs.is_some_and(|needed| !found.contains_key(&needed))).collect::<Vec<_>>()
        {
            let lone = found.remove(&row.role);
            self.left.extend(lone.and_then(|input| self.component.graph.input(&input.name)));
        }
        for row in rows() {
            let Some(by_shape) = row.by_shape.filter(|_| !found.contains_key(&row.role)) else { continue };
            let is_packed = is_packed(&found);
            if let Some(input) = self.only(|info| row.fits(info, is_packed) && by_shape(info, &found)) {
                found.insert(row.role, input);
            }
        }
        found
    }

    /// Takes the input that was given the role by its word, or has one of its names and this form.
    fn named(&mut self, row: &RoleRow, fits: impl Fn(&TensorInfo) -> bool) -> Option<TensorInfo> {
        self.tried.extend(row.names.first());
        if let Some(at) = self.mapped.iter().position(|(word, _)| *word == row.word) {
            let (_, input) = self.mapped.get(at).filter(|(_, input)| fits(input))?;
            let input = (*input).clone();
            self.mapped.remove(at);
            return Some(input);
        }
        for name in row.names {
            if let Some(at) = self.left.iter().position(|i| i.name == *name && fits(i)) {
                return Some(self.left.remove(at).clone());
            }
        }
        None
    }

    /// Takes the input of this form, if exactly one is left.
    pub(super) fn only(&mut self, fits: impl Fn(&TensorInfo) -> bool) -> Option<TensorInfo> {
        let mut at = self.left.iter().enumerate().filter(|(_, i)| fits(i)).map(|(at, _)| at);
        let (first, second) = (at.next()?, at.next());
        second.is_none().then(|| self.left.remove(first).clone())
    }

    /// Takes all inputs that `pick` gives a place, in the order of the places.
    pub(super) fn all<K: Ord>(&mut self, pick: impl Fn(&TensorInfo) -> Option<K>) -> Vec<(K, TensorInfo)> {
        let mut taken: Vec<(K, TensorInfo)> =
            self.left.iter().filter_map(|i| pick(i).map(|k| (k, (*i).clone()))).collect();
        self.left.retain(|i| pick(i).is_none());
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        taken
    }

    /// Takes the boolean inputs that tracing leaves behind.
    pub(super) fn switches(&mut self) -> Vec<Switch> {
        let value = |i: &TensorInfo| {
            CONSTANTS.iter().find(|(name, _)| i.dtype == DType::Bool && i.name == *name).map(|&(_, value)| value)
        };
        self.all(value).into_iter().map(|(value, input)| Switch { input, value }).collect()
    }

    /// Moves the input of a role that the graph needs out of `found`.
    ///
    /// # Errors
    /// [`Error::Model`] naming the role, if no input has it.
    pub(super) fn require(&self, found: &mut BTreeMap<Role, TensorInfo>, role: Role) -> Result<TensorInfo> {
        let is_packed = is_packed(found);
        found.remove(&role).ok_or_else(|| self.lacks(role.description(), &role.row().form(is_packed)))
    }

    /// The error about a role that no input has.
    pub(super) fn lacks(&self, role: &str, form: &str) -> Error {
        if let Err(error) = self.check_role_map() {
            return error;
        }
        let known = self.component.graph.inputs.iter().find_map(|i| hint(&i.name));
        Error::model(
            &self.component.graph.path,
            format!(
                "{} has no input for its {role} ({form}); its inputs are{}",
                self.component.kind,
                describe(&self.component.graph.inputs)
            ),
            known.unwrap_or("this graph is of a kind that is not run; export the model with scripts/export.py"),
        )
    }

    /// Fails if the pipeline file assigns a role to an input that the graph lacks or that has not the role's form.
    fn check_role_map(&self) -> Result<()> {
        let Component { kind, graph, roles, .. } = self.component;
        let key = |name: &str| format!("model.{kind}.inputs.{name}");
        if let Some((name, role)) = roles.iter().find(|(name, _)| graph.input(name).is_none()) {
            return Err(Error::input(
                key(name),
                format!(
                    "is to be the {role}, and {} has no such input; its inputs are{}",
                    graph.path.display(),
                    describe(&graph.inputs)
                ),
                "write an input's name as `ldm-ort inspect` shows it",
            ));
        }
        match self.mapped.first() {
            None => Ok(()),
            Some((role, input)) => Err(Error::input(
                key(&input.name),
                format!("the input{} has not the form of the {role}", describe(&[(*input).clone()])),
                "give the role to another input; each role has one",
            )),
        }
    }

    /// Fails if an input is left that nothing can fill.
    pub(super) fn finish(self) -> Result<()> {
        self.check_role_map()?;
        if self.left.is_empty() {
            return Ok(());
        }
        let left: Vec<TensorInfo> = self.left.iter().map(|i| (*i).clone()).collect();
        let known = left.iter().find_map(|i| hint(&i.name));
        Err(Error::model(
            &self.component.graph.path,
            format!(
                "{} has {} that nothing here can fill:{}\n  tried by name, by shape and by type: {}",
                self.component.kind,
                if left.len() == 1 { "an input".to_owned() } else { format!("{} inputs", left.len()) },
                describe(&left),
                self.tried.join(", ")
            ),
            match (known, role_words(self.component.kind).as_slice()) {
                (Some(known), _) => known.to_owned(),
                (None, []) => "export the model with scripts/export.py".to_owned(),
                (None, words) => format!(
                    "if one of them has a role under another name, say so: [model.{}] inputs = {{ \"{}\" = \"ROLE\" }}, \
                     ROLE one of {}; else export the model with scripts/export.py",
                    self.component.kind,
                    self.left.first().map_or("", |input| &input.name),
                    words.join(", "),
                ),
            },
        ))
    }
}
