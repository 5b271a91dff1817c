//! The forms in which the operators and nodes of a graph read its tensors.

use super::Emitter;
use crate::kernels::{Filtering, ImageConvolution, OperandType};
use crate::rewrite::indexed_graph::{is, output};
use crate::rewrite::operators::forms::{TensorForm, padded};
use crate::rewrite::operators::fused::{Fused, FusedNodes, FusedProduct};

impl Emitter<'_, '_, '_> {
    /// The form that all readers of a tensor want, if that is an operand.
    pub fn wanted(&self, name: &str) -> Option<TensorForm> {
        let source = self.site.source;
        let mut wanted: Vec<Option<TensorForm>> = Vec::new();
        if !source.is_inner(name) {
            return None;
        }
        for &reader in source.readers(name) {
            if let Some(&number) = self.group_of.get(&reader) {
                wanted.extend(self.wants(&self.groups[number], name));
                continue;
            }
            if let Some(numbers) = self.folds.get(&reader) {
                let of_groups = numbers.iter().flat_map(|&number| self.wants(&self.groups[number], name));
                wanted.extend(of_groups);
                // Something else reads the joined axes as well.
                let made = output(&source.nodes[reader]).unwrap_or_default();
                wanted.extend((source.readers(made).len() != numbers.len()).then_some(None));
                continue;
            }
            let through =
                self.forms.layouts.between.get(&reader).copied().or_else(|| {
                    output(&source.nodes[reader]).filter(|made| self.forms.layouts.aliases.contains_key(made))
                });
            let Some(through) = through else {
                wanted.push(self.moved(reader));
                continue;
            };
            wanted.push(self.wanted(through).and_then(|form| match form {
                TensorForm::Operand { is_image, operands, has_border: false, is_padded } => {
                    Some(TensorForm::Operand { is_image: !is_image, operands, has_border: false, is_padded })
                }
                _ => None,
            }));
        }
        let first = wanted.first().copied().flatten()?;
        // Without a border, a float32 operand is the tensor itself.
        let is_itself = matches!(first, TensorForm::Operand { operands: OperandType::Float32, has_border: false, .. });
        (!is_itself && wanted.iter().all(|form| *form == Some(first))).then_some(first)
    }

    /// The form in which a node that only moves numbers reads and makes them, if all readers of its result want an operand.
    pub fn moved(&self, at: usize) -> Option<TensorForm> {
        const MOVES: [&str; 6] = ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Slice"];
        let node = self.site.source.nodes.get(at)?;
        let is_free = !self.group_of.contains_key(&at)
            && !self.folds.contains_key(&at)
            && !self.forms.layouts.on_images.contains(&at);
        let made = output(node).filter(|_| is_free && MOVES.iter().any(|operator| is(node, operator)))?;
        self.wanted(made).filter(|form| {
            matches!(form, TensorForm::Operand { is_image: false, has_border: false, is_padded: false, .. })
        })
    }

    /// The forms in which a group reads a tensor; `None` is float32.
    fn wants(&self, group: &FusedNodes<'_>, name: &str) -> Vec<Option<TensorForm>> {
        match &group.fused {
            Fused::Product(product) => {
                let mut wants = Vec::new();
                if product.input == name {
                    wants.push(Some(self.operand_of(product)));
                }
                let others = [product.added, product.gate, product.residual];
                wants.extend(others.into_iter().flatten().filter(|other| *other == name).map(|_| None));
                wants
            }
            Fused::Attention(attention) => {
                vec![(attention.mask != Some(name)).then(|| self.attention_operand())]
            }
            Fused::GroupNorm(_) => vec![self.is_rounded_for_norm(name).then(|| self.rounded_image())],
            Fused::RowNorm(_) | Fused::HeadNorm(_) => vec![None],
        }
    }

    /// An image in the operands' type.
    pub fn rounded_image(&self) -> TensorForm {
        TensorForm::Operand { is_image: true, operands: self.choice.operands, has_border: false, is_padded: false }
    }

    /// True for an image that may be rounded although it is normalized next: the result of a product that is not added to
    /// anything, so that its rounding is in the numbers of one block only.
    fn is_rounded_for_norm(&self, name: &str) -> bool {
        let maker = self.site.source.maker_index(name).and_then(|at| self.group_of.get(&at));
        match maker.map(|&number| &self.groups[number].fused) {
            Some(Fused::Product(product)) => {
                product.residual.is_none() && product.is_image && product.operands(self.choice) == OperandType::Bf16
            }
            _ => false,
        }
    }

    /// The tiles of a convolution.
    pub fn filtering_of(&self, product: &FusedProduct<'_>) -> Option<Filtering> {
        let lengths = self.site.lengths(product.input)?;
        let sides: usize = lengths.get(2..)?.iter().product();
        let pixels = lengths.first()? * sides * if product.upsamples { 4 } else { 1 };
        let is_plain = product.kernel == 3 && product.stride == 1;
        let chosen = self.choice.filtering_of(product.columns, product.depth, pixels, product.upsamples);
        chosen.filter(|_| is_plain)
    }

    /// The pixels of a convolution's result that are side by side in a panel.
    pub fn pixels_of(&self, product: &FusedProduct<'_>) -> usize {
        let is_plain = product.kernel == 3 && product.stride == 1 && product.offset == 0 && !product.upsamples;
        let has_others = product.is_gated || product.gate.is_some() || self.filtering_of(product).is_some();
        match self.site.lengths(product.input).as_deref() {
            Some([_, _, _, width]) if is_plain && !has_others => {
                ImageConvolution::pixels_per_panel(product.columns, *width)
            }
            _ => 1,
        }
    }

    pub fn operand_of(&self, product: &FusedProduct<'_>) -> TensorForm {
        TensorForm::Operand {
            is_image: product.is_image,
            operands: product.operands(self.choice),
            has_border: product.kernel == 3,
            is_padded: padded(product.operands(self.choice), product.depth) != product.depth,
        }
    }

    pub fn attention_operand(&self) -> TensorForm {
        TensorForm::Operand { is_image: false, operands: self.choice.operands, has_border: false, is_padded: false }
    }
}
