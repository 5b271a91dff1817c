//! The forms in which the tensors of a graph are there, and the nodes that make one from another.

use std::collections::{BTreeSet, HashMap};

use super::layout::{LayoutAlias, Layouts};
use super::site::Site;
use crate::bundle::proto::{AttributeProto, NodeProto};
use crate::kernels::{DOMAIN, Number, OperandType, OwnOperator};
use crate::rewrite::edits::{Edits, int, ints, node};
use crate::tensor::DType;

/// A form in which a tensor is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorForm {
    /// As in the graph.
    Plain,
    /// An image with its channels last.
    Image,
    /// An operand of a product or of attention.
    Operand {
        /// True if it is an image, with its channels last.
        is_image: bool,
        /// The type.
        operands: OperandType,
        /// True if it has a border of one pixel.
        has_border: bool,
        /// True if its last axis is padded with zeros, as products want it where their depth is no multiple of a step.
        is_padded: bool,
    },
}

/// A tensor as it is made in the new graph.
#[derive(Debug, Clone)]
pub struct MadeTensor {
    /// The form.
    pub form: TensorForm,
    /// The name in the new graph.
    pub name: String,
    /// The node after which it is there; `None` from the start.
    pub at: Option<usize>,
}

/// The tensors of a graph while it is written anew.
pub struct TensorForms<'s> {
    site: Site<'s>,
    /// The order of axes.
    pub layouts: Layouts<'s>,
    /// The changes to the graph.
    pub edits: Edits,
    bases: HashMap<String, MadeTensor>,
    made: HashMap<(String, TensorForm), String>,
    /// The lengths that the changes hold.
    pub stored_lengths: BTreeSet<usize>,
}

impl<'s> TensorForms<'s> {
    /// Begins with a graph in which nothing is replaced.
    pub fn new(site: Site<'s>, layouts: Layouts<'s>) -> Self {
        Self {
            site,
            layouts,
            edits: Edits::default(),
            bases: HashMap::new(),
            made: HashMap::new(),
            stored_lengths: BTreeSet::new(),
        }
    }

    /// Notes the form in which an operator makes a tensor.
    pub fn insert(&mut self, name: &str, made: MadeTensor) {
        self.bases.insert(name.to_owned(), made);
    }

    /// Returns an unused name.
    pub fn name(&mut self) -> String {
        self.edits.name(self.site.source, "operator")
    }

    /// Returns a tensor's lengths.
    pub fn lengths(&self, name: &str) -> Vec<usize> {
        self.site.lengths(name).unwrap_or_default()
    }

    /// Stores lengths, and returns their name.
    pub fn list(&mut self, lengths: &[usize]) -> String {
        self.stored_lengths.extend(lengths);
        let list: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
        self.edits.list(self.site.source, &list)
    }

    /// Adds a node after another one.
    pub fn follow(&mut self, at: Option<usize>, node: NodeProto) {
        self.edits.follow(at, node);
    }

    /// Returns the form in which a tensor is made.
    pub fn base(&self, name: &str) -> MadeTensor {
        self.bases.get(name).cloned().unwrap_or_else(|| MadeTensor {
            form: TensorForm::Plain,
            name: name.to_owned(),
            at: self.site.source.maker_index(name),
        })
    }

    /// Returns a tensor in a form, which is made if it is not there.
    pub fn form(&mut self, name: &str, form: TensorForm) -> String {
        let form = match form {
            TensorForm::Operand { is_image, operands: OperandType::Float32, has_border: false, .. } => {
                if is_image {
                    TensorForm::Image
                } else {
                    TensorForm::Plain
                }
            }
            other => other,
        };
        let key = (name.to_owned(), form);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let made = match self.layouts.aliases.get(name).copied() {
            Some(alias) => self.aliased(name, alias, form),
            None => self.converted(name, form),
        };
        self.made.insert(key, made.clone());
        made
    }

    /// A form of a tensor that holds another one's values.
    fn aliased(&mut self, name: &str, alias: LayoutAlias<'s>, form: TensorForm) -> String {
        let (lengths, at) = (self.lengths(name), Some(alias.at));
        self.edits.replace(alias.at, Vec::new());
        let (own, of) = if alias.is_of_image {
            (TensorForm::Plain, TensorForm::Image)
        } else {
            (TensorForm::Image, TensorForm::Plain)
        };
        let through = match form {
            _ if form == own => Some(of),
            TensorForm::Operand { is_image, operands, has_border: false, is_padded }
                if is_image != alias.is_of_image =>
            {
                Some(TensorForm::Operand { is_image: !is_image, operands, has_border: false, is_padded })
            }
            _ => None,
        };
        let Some(through) = through else { return self.from(name, own, at, form) };
        let held = self.form(alias.of, through);
        let mut lengths = if alias.is_of_image { lengths } else { image_lengths(&lengths) };
        if let (TensorForm::Operand { operands, is_padded: true, .. }, Some(last)) = (form, lengths.last_mut()) {
            *last = padded(operands, *last);
        }
        let made = if form == TensorForm::Plain { name.to_owned() } else { self.name() };
        let shape = self.list(&lengths);
        self.follow(at, node("Reshape", &[&held, &shape], &made, Vec::new()));
        made
    }

    /// A form of a tensor that a node or an operator makes.
    fn converted(&mut self, name: &str, form: TensorForm) -> String {
        let base = self.base(name);
        if base.form == form {
            return base.name;
        }
        match (base.form, form) {
            // What was made for products alone is read otherwise after all.
            (TensorForm::Operand { is_image, has_border: false, .. }, TensorForm::Plain | TensorForm::Image) => {
                let own = if is_image { TensorForm::Image } else { TensorForm::Plain };
                let made = if form == TensorForm::Plain && !is_image { name.to_owned() } else { self.name() };
                let to = int("to", i64::from(DType::F32.to_onnx()));
                self.follow(base.at, node("Cast", &[&base.name], &made, vec![to]));
                if own == form {
                    return made;
                }
                self.made.insert((name.to_owned(), own), made);
                self.from(name, own, base.at, form)
            }
            (TensorForm::Operand { .. }, _) => {
                let own = if self.layouts.images.contains(name) { TensorForm::Image } else { TensorForm::Plain };
                self.from(name, own, base.at, form)
            }
            (own, _) => {
                self.made.insert((name.to_owned(), own), base.name);
                self.from(name, own, base.at, form)
            }
        }
    }

    /// Makes a form of a tensor from another one, which is float32.
    fn from(&mut self, name: &str, own: TensorForm, at: Option<usize>, form: TensorForm) -> String {
        let turned = |emitter: &mut Self, order: &[i64], made: String| {
            let from = emitter.form(name, own);
            emitter.follow(at, node("Transpose", &[&from], &made, vec![ints("perm", order)]));
            made
        };
        match form {
            TensorForm::Plain => turned(self, &[0, 3, 1, 2], name.to_owned()),
            TensorForm::Image => {
                let made = self.name();
                turned(self, &[0, 2, 3, 1], made)
            }
            TensorForm::Operand { is_image, operands, has_border, is_padded } => {
                let from = self.form(name, if is_image { TensorForm::Image } else { TensorForm::Plain });
                let lengths = self.lengths(name);
                let depth = if is_image { lengths.get(1) } else { lengths.last() }.copied().unwrap_or(0);
                let made = self.name();
                let attributes = vec![
                    int("border", i64::from(has_border)),
                    int("width", if is_padded { padded(operands, depth) as i64 } else { 0 }),
                ];
                self.follow(at, own_node(OwnOperator::Operand, operands, operands, &[&from], &made, attributes));
                made
            }
        }
    }
}

/// The depth of an operand, with its padding.
pub fn padded(operands: OperandType, depth: usize) -> usize {
    match operands {
        OperandType::Float32 => depth.next_multiple_of(f32::STEP),
        OperandType::Bf16 => depth.next_multiple_of(half::bf16::STEP),
    }
}

fn image_lengths(lengths: &[usize]) -> Vec<usize> {
    match *lengths {
        [batch, channels, height, width] => vec![batch, height, width, channels],
        _ => lengths.to_vec(),
    }
}

/// Creates a node of an operator of our own. Inputs left out are empty.
pub fn own_node(
    operator: OwnOperator,
    operands: OperandType,
    results: OperandType,
    inputs: &[&str],
    made: &str,
    attributes: Vec<AttributeProto>,
) -> NodeProto {
    let mut new = node(&operator.name(operands, results), inputs, made, attributes);
    while new.input.last().is_some_and(String::is_empty) {
        new.input.pop();
    }
    NodeProto { domain: DOMAIN.to_owned(), ..new }
}
