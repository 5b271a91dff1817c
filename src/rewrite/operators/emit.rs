//! Writes the graph with its operators.

mod wants;

use std::collections::{BTreeSet, HashMap};

use super::forms::{MadeTensor, TensorForm, TensorForms, own_node};
use super::fused::{Fused, FusedAttention, FusedGroupNorm, FusedHeadNorm, FusedNodes, FusedProduct, FusedRowNorm};
use super::layout::{Layouts, is_by_channel};
use super::site::Site;
use super::weights::{PackedWeights, WeightWriter, column};
use crate::bundle::proto::NodeProto;
use crate::error::Result;
use crate::kernels::{OperandType, OwnOperator};
use crate::rewrite::edits::{float, int, node, text};
use crate::rewrite::indexed_graph::{input, int as int_of, is, output};
use crate::rewrite::pass::OperatorChoice;

/// The graph while it is written.
pub struct Emitter<'s, 'w, 'p> {
    site: Site<'s>,
    groups: Vec<FusedNodes<'s>>,
    /// The group of each node.
    group_of: HashMap<usize, usize>,
    /// The groups that do without a node which joins axes, by that.
    folds: HashMap<usize, Vec<usize>>,
    choice: OperatorChoice,
    writer: &'w mut WeightWriter<'p>,
    forms: TensorForms<'s>,
}

impl<'s, 'w, 'p> Emitter<'s, 'w, 'p> {
    /// Begins with the groups that were found.
    pub fn new(
        site: Site<'s>,
        groups: Vec<FusedNodes<'s>>,
        choice: OperatorChoice,
        writer: &'w mut WeightWriter<'p>,
    ) -> Self {
        let of_group = |(number, group): (usize, &FusedNodes<'s>)| {
            group.nodes.iter().map(move |&at| (at, number)).collect::<Vec<_>>()
        };
        let group_of: HashMap<usize, usize> = groups.iter().enumerate().flat_map(of_group).collect();
        let mut folds: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, group) in groups.iter().enumerate() {
            if let Fused::Product(FusedProduct { fold: Some(fold), .. }) = group.fused {
                folds.entry(fold).or_default().push(number);
            }
        }
        let makes_image = |group: &&FusedNodes<'_>| match &group.fused {
            Fused::Product(product) => product.is_image,
            Fused::GroupNorm(_) => true,
            Fused::RowNorm(_) | Fused::HeadNorm(_) | Fused::Attention(_) => false,
        };
        let made = groups.iter().filter(makes_image).map(|group| (group.last(), group.output)).collect();
        let layouts = Layouts::find(site, &|at| group_of.contains_key(&at), &made);
        let forms = TensorForms::new(site, layouts);
        Self { site, groups, group_of, folds, choice, writer, forms }
    }

    /// Writes the graph, and returns it and the lengths that are stored in it.
    pub fn run(mut self) -> Result<(Vec<u8>, BTreeSet<usize>)> {
        let source = self.site.source;
        for (at, node) in source.nodes.iter().enumerate() {
            if let Some(&number) = self.group_of.get(&at) {
                if self.groups[number].last() == at {
                    self.group(number)?;
                }
            } else if self.forms.layouts.on_images.contains(&at) {
                self.on_images(at, node);
            } else if output(node).is_none_or(|name| !self.forms.layouts.aliases.contains_key(name))
                && !self.forms.layouts.between.contains_key(&at)
            {
                if let Some(form) = self.moved(at) {
                    self.move_operand(at, node, form);
                    continue;
                }
                for name in crate::rewrite::indexed_graph::reads(node) {
                    self.forms.form(&name, TensorForm::Plain);
                }
            }
        }
        for made in &source.outputs {
            self.forms.form(&made.name, TensorForm::Plain);
        }
        let needed = self.forms.edits.needed(source);
        let mut stored: Vec<_> = source.stored().filter(|(tensor, _)| needed.contains(&tensor.name)).collect();
        stored.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        for tensor in stored {
            if let Some(moved) = self.writer.move_here(self.site, tensor)? {
                self.forms.edits.move_stored(moved);
            }
        }
        Ok((self.forms.edits.write(source)?, self.forms.stored_lengths))
    }

    /// Emits a group's operator in the place of its last node.
    fn group(&mut self, number: usize) -> Result<()> {
        let group = self.groups[number].clone();
        let at = group.last();
        let is_image = self.forms.layouts.images.contains(group.output);
        let wanted = self.wanted(group.output);
        let plain = if is_image { TensorForm::Image } else { TensorForm::Plain };
        let (form, made_node) = match group.fused {
            Fused::Product(product) => {
                let operands = product.operands(self.choice);
                // Products write neither a border nor a padding, and bf16 only those of it.
                let results = match wanted {
                    Some(TensorForm::Operand { has_border: false, is_padded: false, .. }) => operands,
                    _ => OperandType::Float32,
                };
                (self.result_form(plain, results), self.product(&product, operands, results)?)
            }
            Fused::Attention(attention) => {
                let results = match wanted {
                    Some(TensorForm::Operand { has_border: false, is_padded: false, .. }) => self.choice.operands,
                    _ => OperandType::Float32,
                };
                (self.result_form(plain, results), self.attention(&attention, results))
            }
            Fused::GroupNorm(norm) => {
                let form = wanted.filter(|form| fits(*form)).unwrap_or(plain);
                let results = operands_in(form);
                (form, self.group_norm(&norm, form, results))
            }
            Fused::RowNorm(norm) => {
                let form = wanted.filter(|form| fits(*form)).unwrap_or(plain);
                let results = operands_in(form);
                (form, self.row_norm(&norm, results, at))
            }
            Fused::HeadNorm(norm) => {
                let form = wanted.filter(|form| fits(*form)).unwrap_or(plain);
                (form, self.head_norm(&norm, operands_in(form)))
            }
        };
        let made = if form == TensorForm::Plain { group.output.to_owned() } else { self.forms.name() };
        let made_node =
            NodeProto { output: vec![made.clone()], name: format!("{made}/{}", made_node.op_type), ..made_node };
        self.forms.edits.replace(at, vec![made_node]);
        self.forms.insert(group.output, MadeTensor { form, name: made, at: Some(at) });
        Ok(())
    }

    fn result_form(&self, plain: TensorForm, results: OperandType) -> TensorForm {
        match results {
            OperandType::Float32 => plain,
            OperandType::Bf16 => TensorForm::Operand {
                is_image: plain == TensorForm::Image,
                operands: results,
                has_border: false,
                is_padded: false,
            },
        }
    }

    fn product(
        &mut self,
        product: &FusedProduct<'s>,
        operands: OperandType,
        results: OperandType,
    ) -> Result<NodeProto> {
        let left = self.forms.form(product.input, self.operand_of(product));
        let (filtering, pixels) = (self.filtering_of(product), self.pixels_of(product));
        let in_int8 = product.is_int8(self.choice);
        let is_merged = product.upsamples && filtering.is_none();
        let weights = PackedWeights { product, operands, in_int8, is_merged, pixels };
        let packed = match self.writer.packed(&weights) {
            Some(name) => name.clone(),
            None => {
                let name = self.forms.name();
                if let Some(tensor) = self.writer.pack(self.site, &weights, &name)? {
                    self.forms.edits.store_tensor(tensor);
                }
                name
            }
        };
        let bias = product.bias.map(|bias| self.bias(product, bias)).unwrap_or_default();
        let of_image = if product.is_image { TensorForm::Image } else { TensorForm::Plain };
        let added = product.added.map(|name| self.forms.form(name, TensorForm::Plain)).unwrap_or_default();
        let gate = product.gate.map(|name| self.forms.form(name, TensorForm::Plain)).unwrap_or_default();
        let residual = product.residual.map(|name| self.forms.form(name, of_image)).unwrap_or_default();
        let inputs = [&left, &packed, &bias, &added, &gate, &residual].map(String::as_str);
        let of_columns = [
            int("columns", product.columns as i64),
            text("activation", product.activation.name()),
            int("gated", i64::from(product.is_gated)),
        ];
        if in_int8 {
            return Ok(own_node(OwnOperator::Int8Product, operands, results, &inputs, "", of_columns.into()));
        }
        let of_windows = [
            int("kernel", product.kernel as i64),
            int("stride", product.stride as i64),
            int("offset", product.offset as i64),
            int("upsample", i64::from(product.upsamples)),
            int("tile", filtering.map_or(0, |filtering| filtering.tile() as i64)),
            int("pixels", pixels as i64),
        ];
        let attributes = of_columns.into_iter().chain(of_windows).collect();
        Ok(own_node(OwnOperator::Product, operands, results, &inputs, "", attributes))
    }

    /// The bias in the order of the packed columns.
    fn bias(&mut self, product: &FusedProduct<'s>, bias: &str) -> String {
        if !product.is_gated {
            return bias.to_owned();
        }
        let values = self.site.source.stored_floats(bias).unwrap_or_default();
        let ordered: Vec<f32> =
            (0..product.columns).map(|at| values.get(column(product, at)).copied().unwrap_or(0.0)).collect();
        self.forms.edits.floats(self.site.source, "bias", &[ordered.len()], &ordered)
    }

    fn attention(&mut self, attention: &FusedAttention<'s>, results: OperandType) -> NodeProto {
        let form = self.attention_operand();
        let [queries, keys, values] = attention.operands.map(|name| self.forms.form(name, form));
        let mask = self.plain(attention.mask);
        let attributes = vec![int("heads", attention.heads as i64), float("scale", attention.scale)];
        let inputs = [&queries, &keys, &values, &mask].map(String::as_str);
        own_node(OwnOperator::Attention, self.choice.operands, results, &inputs, "", attributes)
    }

    fn group_norm(&mut self, norm: &FusedGroupNorm<'s>, form: TensorForm, results: OperandType) -> NodeProto {
        let (read, operands) = match self.forms.base(norm.input).form {
            form if form == self.rounded_image() => (form, operands_in(form)),
            _ => (TensorForm::Image, OperandType::Float32),
        };
        let image = self.forms.form(norm.input, read);
        let has_border = matches!(form, TensorForm::Operand { has_border: true, .. });
        let attributes = vec![
            int("groups", norm.groups as i64),
            float("epsilon", norm.epsilon),
            text("activation", norm.activation.name()),
            int("border", i64::from(has_border)),
        ];
        own_node(OwnOperator::GroupNorm, operands, results, &[&image, "", norm.scale, norm.shift], "", attributes)
    }

    fn row_norm(&mut self, norm: &FusedRowNorm<'s>, results: OperandType, at: usize) -> NodeProto {
        let rows = self.forms.form(norm.input, TensorForm::Plain);
        let scale = match (norm.scale, norm.modulation) {
            (Some(scale), Some(modulation)) => {
                // Before the node that is replaced, and so before the operator.
                let both = self.forms.name();
                let modulation = self.forms.form(modulation, TensorForm::Plain);
                self.forms.follow(at.checked_sub(1), node("Mul", &[&modulation, scale], &both, Vec::new()));
                both
            }
            (scale, modulation) => self.plain(scale.or(modulation)),
        };
        let shift = self.plain(norm.shift);
        let attributes = vec![float("epsilon", norm.epsilon), int("centers", i64::from(norm.centers))];
        own_node(OwnOperator::RowNorm, results, results, &[&rows, &scale, &shift], "", attributes)
    }

    /// A tensor as it is in the graph, or nothing.
    fn plain(&mut self, name: Option<&str>) -> String {
        name.map(|name| self.forms.form(name, TensorForm::Plain)).unwrap_or_default()
    }

    fn head_norm(&mut self, norm: &FusedHeadNorm<'s>, results: OperandType) -> NodeProto {
        let second = norm.sequences.get(1);
        let first = norm.sequences.first();
        let of = [
            first.map(|sequence| sequence.rows),
            second.map(|sequence| sequence.rows),
            first.and_then(|sequence| sequence.scale),
            second.and_then(|sequence| sequence.scale),
            norm.rotary.map(|rotary| rotary.cosines),
            norm.rotary.map(|rotary| rotary.sines),
        ];
        let inputs = of.map(|name| self.plain(name));
        let attributes = vec![
            int("normalizes", i64::from(norm.epsilon.is_some())),
            float("epsilon", norm.epsilon.unwrap_or_default()),
            text("pairs", norm.rotary.map_or("", |rotary| rotary.pairs.name())),
            int("by_pair", i64::from(norm.rotary.is_some_and(|rotary| rotary.is_by_pair))),
        ];
        own_node(OwnOperator::HeadNorm, results, results, &inputs.each_ref().map(String::as_str), "", attributes)
    }

    /// Emits a node that moves numbers, on operands.
    fn move_operand(&mut self, at: usize, node: &NodeProto, form: TensorForm) {
        let Some(made) = output(node) else { return };
        let is_list = |place: usize| place > 0 && !is(node, "Concat");
        let input = (0..node.input.len())
            .map(|place| {
                let form = if is_list(place) { TensorForm::Plain } else { form };
                input(node, place).map(|name| self.forms.form(name, form)).unwrap_or_default()
            })
            .collect();
        let name = self.forms.name();
        let new = NodeProto { input, output: vec![name.clone()], ..node.clone() };
        self.forms.edits.replace(at, vec![new]);
        self.forms.insert(made, MadeTensor { form, name, at: Some(at) });
    }

    /// Emits a node on images with their channels last.
    fn on_images(&mut self, at: usize, node_: &NodeProto) {
        let Some(made) = output(node_) else { return };
        let channels = self.forms.lengths(made).get(1).copied().unwrap_or(0);
        let mut inputs = Vec::new();
        for place in 0..node_.input.len() {
            let Some(name) = input(node_, place) else {
                inputs.push(String::new());
                continue;
            };
            let lengths = self.forms.lengths(name);
            inputs.push(if Site::count(&lengths) == 1 {
                self.forms.form(name, TensorForm::Plain)
            } else if is_by_channel(&lengths, channels) && lengths != self.forms.lengths(made) {
                let plain = self.forms.form(name, TensorForm::Plain);
                let batch = if lengths.len() == 4 { lengths[0] } else { 1 };
                let (shape, turned) = (self.forms.list(&[batch, 1, 1, channels]), self.forms.name());
                let from = self.forms.base(name).at;
                self.forms.follow(from, node("Reshape", &[&plain, &shape], &turned, Vec::new()));
                turned
            } else {
                self.forms.form(name, TensorForm::Image)
            });
        }
        let name = self.forms.name();
        let mut new = NodeProto { input: inputs, output: vec![name.clone()], ..node_.clone() };
        if is(node_, "Concat") && int_of(node_, "axis") == Some(1) {
            new.attribute = vec![int("axis", 3)];
        }
        self.forms.edits.replace(at, vec![new]);
        self.forms.insert(made, MadeTensor { form: TensorForm::Image, name, at: Some(at) });
    }
}

/// True for a form that a normalization can write.
fn fits(form: TensorForm) -> bool {
    matches!(form, TensorForm::Operand { is_padded: false, .. })
}

fn operands_in(form: TensorForm) -> OperandType {
    if let TensorForm::Operand { operands, .. } = form { operands } else { OperandType::Float32 }
}
