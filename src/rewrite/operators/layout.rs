//! Nodes that only change the order of an image's axes, and nodes that may compute on either order.

use std::collections::{HashMap, HashSet};

use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{input, int, ints, is, output};

/// A tensor that holds the values of another one in the other order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutAlias<'s> {
    /// The tensor.
    pub of: &'s str,
    /// True if that is an image, `[batch, channels, height, width]`, whose channels are the last axis here; false if the
    /// tensor here is the image.
    pub is_of_image: bool,
    /// The node that makes the tensor here.
    pub at: usize,
}

/// The known orders of axes.
#[derive(Debug, Default)]
pub struct Layouts<'s> {
    /// Tensors that need no node of their own, by name.
    pub aliases: HashMap<&'s str, LayoutAlias<'s>>,
    /// Nodes between an alias and what it holds, with the alias.
    pub between: HashMap<usize, &'s str>,
    /// Nodes that compute on images with the channels last.
    pub on_images: HashSet<usize>,
    /// Images that such nodes or operators make.
    pub images: HashSet<&'s str>,
}

/// Operators that compute each number from the numbers in its place.
const BY_VALUE: [&str; 16] = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Relu",
    "LeakyRelu",
    "Sqrt",
    "Exp",
    "Neg",
    "Clip",
    "Abs",
    "Min",
];

impl<'s> Layouts<'s> {
    /// Looks at all nodes that no operator replaces. `made` are the images that operators make, by the node.
    pub fn find(site: Site<'s>, is_taken: &dyn Fn(usize) -> bool, made: &HashMap<usize, &'s str>) -> Self {
        let mut layouts = Self::default();
        for (at, node) in site.source.nodes.iter().enumerate() {
            if let Some(image) = made.get(&at) {
                layouts.images.insert(image);
            }
            if is_taken(at) {
                continue;
            }
            if let Some(alias) = layouts.alias(site, at, node) {
                layouts.aliases.extend(output(node).map(|name| (name, alias)));
                if !alias.is_of_image {
                    layouts.images.extend(output(node));
                }
            } else if layouts.is_on_images(site, node) {
                layouts.on_images.insert(at);
                layouts.images.extend(output(node));
            }
        }
        layouts
    }

    fn alias(&mut self, site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<LayoutAlias<'s>> {
        let (from, made) = (input(node, 0)?, output(node)?);
        let lengths = site.lengths(made)?;
        if is(node, "Transpose") {
            let order = ints(node, "perm")?;
            return match (order, lengths.as_slice()) {
                ([0, 2, 3, 1], _) => Some(LayoutAlias { of: from, is_of_image: true, at }),
                ([0, 3, 1, 2], _) => Some(LayoutAlias { of: from, is_of_image: false, at }),
                ([0, 2, 1], &[batch, pixels, channels]) => {
                    // An image whose height and width were joined.
                    let (before, join) = (site.source.maker_index(from)?, site.source.maker(from)?);
                    let image = input(join, 0).filter(|_| is(join, "Reshape"))?;
                    let &[b, c, h, w] = site.lengths(image)?.as_slice() else { return None };
                    ((b, c, h * w) == (batch, channels, pixels)).then_some(())?;
                    site.only_reader(from)?;
                    self.between.insert(before, made);
                    Some(LayoutAlias { of: image, is_of_image: true, at })
                }
                _ => None,
            };
        }
        // An image whose pixels were in one axis.
        let (before, turn) = (site.source.maker_index(from)?, site.source.maker(from)?);
        let rows = input(turn, 0).filter(|_| is(turn, "Transpose") && ints(turn, "perm") == Some(&[0, 2, 1]))?;
        let &[b, c, h, w] = lengths.as_slice() else { return None };
        let is_split = is(node, "Reshape") && site.lengths(rows)? == [b, h * w, c];
        (is_split && site.only_reader(from).is_some()).then_some(())?;
        self.between.insert(before, made);
        Some(LayoutAlias { of: rows, is_of_image: false, at })
    }

    fn is_on_images(&self, site: Site<'s>, node: &'s NodeProto) -> bool {
        let Some(lengths) = output(node).and_then(|made| site.lengths(made)).filter(|lengths| lengths.len() == 4)
        else {
            return false;
        };
        let has_image = node.input.iter().any(|name| self.images.contains(name.as_str()));
        if is(node, "Concat") {
            return has_image && int(node, "axis") == Some(1) && node.input.iter().all(|name| site.is_float(name));
        }
        let fits = |name: &String| {
            name.is_empty()
                || site
                    .lengths(name)
                    .is_some_and(|own| own == lengths || Site::count(&own) == 1 || is_by_channel(&own, lengths[1]))
        };
        let is_by_value = BY_VALUE.iter().any(|operator| is(node, operator));
        is_by_value && has_image && node.input.iter().all(fits) && node.input.iter().all(|name| site.is_float(name))
    }
}

/// True for a number for each channel, of each image or of all: `[batch, channels, 1, 1]`, with or without the batch.
pub fn is_by_channel(lengths: &[usize], channels: usize) -> bool {
    matches!(*lengths, [_, c, 1, 1] | [c, 1, 1] if c == channels)
}
