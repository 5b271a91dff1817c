//! Rotary position embedding in any form: each number of a head is followed through the nodes that move, negate and multiply
//! it.

use std::collections::HashMap;

use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::kernels::RotaryPairs;
use crate::rewrite::indexed_graph::{input, int, is, is_own, output};

/// The order of the axes of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrder {
    /// `[batch, rows, heads, width]`
    RowsFirst,
    /// `[batch, heads, rows, width]`
    HeadsFirst,
}

impl HeadOrder {
    /// The axis of rows.
    pub fn rows(self) -> usize {
        if self == Self::RowsFirst { 1 } else { 2 }
    }

    /// The axis of heads.
    fn heads(self) -> usize {
        3 - self.rows()
    }

    /// The order after these axes are exchanged.
    pub fn exchanged(self) -> Self {
        if self == Self::RowsFirst { Self::HeadsFirst } else { Self::RowsFirst }
    }
}

/// The nodes of a rotary embedding.
#[derive(Debug, Clone)]
pub struct RotaryNodes<'s> {
    /// The tensor that is turned.
    pub input: &'s str,
    /// The tensor of cosines.
    pub cosines: &'s str,
    /// The tensor of sines.
    pub sines: &'s str,
    /// The pairs.
    pub pairs: RotaryPairs,
    /// True if there is one cosine a pair.
    pub is_by_pair: bool,
    /// The indices of its nodes.
    pub nodes: Vec<usize>,
}

/// Finds the rotary embedding that makes a tensor of heads, whose last axis may be divided into several.
pub fn making<'s>(site: Site<'s>, name: &'s str, order: HeadOrder) -> Option<RotaryNodes<'s>> {
    let lengths = site.lengths(name)?;
    let &[batch, second, third, ref rest @ ..] = lengths.as_slice() else { return None };
    let width = Site::count(rest);
    if !width.is_multiple_of(2) || !site.is_float(name) {
        return None;
    }
    let origins = origins(site, name, &[batch, second, third, width]);
    origins.into_iter().find_map(|origin| {
        let before = [batch, second, third];
        let mut trace = Trace { site, origin, order, before, width, known: HashMap::new(), nodes: Vec::new() };
        let turned = trace.value(name)?;
        let mut nodes = trace.nodes;
        nodes.sort_unstable();
        nodes.dedup();
        turned.rotary(origin, width, nodes)
    })
}

/// Operators that move, negate or combine numbers of a head.
const THROUGH: [&str; 13] = [
    "Add",
    "Sub",
    "Neg",
    "Mul",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Concat",
    "Split",
    "Slice",
    "Gather",
];

/// The tensors of the same shape that a tensor may be computed of, the nearest first.
fn origins<'s>(site: Site<'s>, name: &'s str, lengths: &[usize]) -> Vec<&'s str> {
    /// The longest form has some twenty nodes, each for two halves.
    const MOST: usize = 64;
    let mut open = vec![name];
    let mut at = 0;
    while at < open.len().min(MOST) {
        let node = site.source.maker(open[at]).filter(|node| is_own(node) && THROUGH.contains(&node.op_type.as_str()));
        for name in node.iter().flat_map(|node| &node.input) {
            if !name.is_empty() && !open.contains(&name.as_str()) {
                open.push(name);
            }
        }
        at += 1;
    }
    open.retain(|other| *other != name && site.lengths(other).as_deref() == Some(lengths));
    open
}

/// A number of the origin, with its sign and what it is multiplied by.
#[derive(Debug, Clone, PartialEq)]
struct Term<'s> {
    /// The place in the head.
    at: usize,
    is_negative: bool,
    /// A tensor and the place in its row.
    factor: Option<(&'s str, usize)>,
}

/// The numbers of a tensor for each head: sums of terms, in the order of its axes after the first three.
#[derive(Debug, Clone)]
struct HeadValue<'s> {
    lengths: Vec<usize>,
    numbers: Vec<Vec<Term<'s>>>,
}

impl<'s> HeadValue<'s> {
    /// The places of an axis.
    fn taken(&self, axis: usize, places: &[usize]) -> Option<Self> {
        let (&length, inner) = (self.lengths.get(axis)?, Site::count(self.lengths.get(axis + 1..)?));
        let mut numbers = Vec::new();
        for outer in self.numbers.chunks(length * inner) {
            for &place in places {
                numbers.extend_from_slice(outer.get(place * inner..(place + 1) * inner)?);
            }
        }
        let mut lengths = self.lengths.clone();
        lengths[axis] = places.len();
        Some(Self { lengths, numbers })
    }

    /// Values side by side along an axis.
    fn joined(parts: &[Self], axis: usize) -> Option<Self> {
        let first = parts.first()?;
        let outer = Site::count(first.lengths.get(..axis)?);
        let mut numbers = Vec::new();
        for at in 0..outer {
            for part in parts {
                let each = part.numbers.len() / outer.max(1);
                numbers.extend_from_slice(part.numbers.get(at * each..(at + 1) * each)?);
            }
        }
        let mut lengths = first.lengths.clone();
        *lengths.get_mut(axis)? = parts.iter().filter_map(|part| part.lengths.get(axis)).sum();
        (numbers.len() == Site::count(&lengths)).then_some(Self { lengths, numbers })
    }

    fn negated(mut self) -> Self {
        self.numbers.iter_mut().flatten().for_each(|term| term.is_negative = !term.is_negative);
        self
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        self.numbers.iter_mut().zip(other.numbers).for_each(|(own, other)| own.extend(other));
        (self.lengths == other.lengths).then_some(self)
    }

    /// Reads the rotary embedding off: each number is itself times a cosine, and its partner times a sine.
    fn rotary(&self, origin: &'s str, width: usize, nodes: Vec<usize>) -> Option<RotaryNodes<'s>> {
        let split = |number: usize| {
            let [a, b] = self.numbers.get(number)?.as_slice() else { return None };
            let (own, other) = if a.at == number { (a, b) } else { (b, a) };
            Some((own.clone(), other.clone(), own.factor?, other.factor?))
        };
        let (_, other, (cosines, _), (sines, _)) = split(0)?;
        let pairs = if other.at == 1 { RotaryPairs::Adjacent } else { RotaryPairs::Halves };
        let of_last = split(width - 1)?.2.1;
        let is_by_pair = of_last + 1 != width;
        let fits = |number: usize| {
            let (pair, partner, is_first) = match pairs {
                RotaryPairs::Adjacent => (number / 2, number ^ 1, number.is_multiple_of(2)),
                RotaryPairs::Halves => (number % (width / 2), (number + width / 2) % width, number < width / 2),
            };
            let from = if is_by_pair { pair } else { number };
            split(number).is_some_and(|(own, other, cosine, sine)| {
                (own.at, own.is_negative) == (number, false)
                    && (other.at, other.is_negative) == (partner, is_first)
                    && (cosine, sine) == ((cosines, from), (sines, from))
            })
        };
        let is_rotary = self.numbers.len() == width && (0..width).all(fits);
        is_rotary.then_some(RotaryNodes { input: origin, cosines, sines, pairs, is_by_pair, nodes })
    }
}

/// Follows the numbers of `origin`.
struct Trace<'s> {
    site: Site<'s>,
    origin: &'s str,
    order: HeadOrder,
    /// The first three lengths of all tensors on the way.
    before: [usize; 3],
    width: usize,
    known: HashMap<&'s str, HeadValue<'s>>,
    nodes: Vec<usize>,
}

impl<'s> Trace<'s> {
    fn value(&mut self, name: &'s str) -> Option<HeadValue<'s>> {
        if name == self.origin {
            let term = |at| vec![Term { at, is_negative: false, factor: None }];
            return Some(HeadValue { lengths: vec![self.width], numbers: (0..self.width).map(term).collect() });
        }
        if let Some(known) = self.known.get(name) {
            return Some(known.clone());
        }
        let at = self.site.source.maker_index(name)?;
        let node = self.site.source.nodes.get(at).filter(|node| is_own(node))?;
        let made = self.made_by(node, name)?;
        let lengths = self.after(name)?;
        let made = (made.numbers.len() == Site::count(&lengths)).then_some(HeadValue { lengths, ..made })?;
        self.nodes.push(at);
        self.known.insert(name, made.clone());
        Some(made)
    }

    /// The lengths of a tensor after those of batch, rows and heads.
    fn after(&self, name: &str) -> Option<Vec<usize>> {
        let lengths = self.site.lengths(name)?;
        lengths.strip_prefix(&self.before[..]).map(<[usize]>::to_vec)
    }

    fn made_by(&mut self, node: &'s NodeProto, name: &str) -> Option<HeadValue<'s>> {
        let first = input(node, 0)?;
        match node.op_type.as_str() {
            "Add" => self.value(first)?.plus(self.value(input(node, 1)?)?),
            "Sub" => self.value(first)?.plus(self.value(input(node, 1)?)?.negated()),
            "Neg" => Some(self.value(first)?.negated()),
            "Mul" => {
                let second = input(node, 1)?;
                self.multiplied(first, second).or_else(|| self.multiplied(second, first))
            }
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" => self.value(first),
            "Concat" => {
                let axis = self.axis(int(node, "axis")?, output(node)?)?;
                let parts = node.input.iter().map(|name| self.value(name)).collect::<Option<Vec<_>>>()?;
                HeadValue::joined(&parts, axis)
            }
            "Split" | "Slice" | "Gather" => {
                let (axis, places) = self.places(node, name)?;
                self.value(first)?.taken(axis, &places)
            }
            _ => None,
        }
    }

    /// An axis after the first three, counted from there.
    fn axis(&self, axis: i64, name: &str) -> Option<usize> {
        let rank = self.site.lengths(name)?.len();
        let axis =
            if axis < 0 { rank.checked_sub(usize::try_from(-axis).ok()?)? } else { usize::try_from(axis).ok()? };
        axis.checked_sub(self.before.len())
    }

    /// The axis of which a node takes some places, and those.
    fn places(&self, node: &'s NodeProto, name: &str) -> Option<(usize, Vec<usize>)> {
        let whole = input(node, 0)?;
        let number = |at: usize| Some(self.site.facts.scalar(input(node, at)?)? as i64);
        let attribute = || int(node, "axis").unwrap_or(0);
        let axis = if is(node, "Slice") { number(3)? } else { attribute() };
        let axis = self.axis(axis, whole)?;
        let length = *self.after(whole)?.get(axis)?;
        let within = |at: i64| {
            let at = if at < 0 { at + length as i64 } else { at };
            usize::try_from(at.min(length as i64)).ok()
        };
        let places = match node.op_type.as_str() {
            "Split" => {
                let mut start = 0;
                for made in &node.output {
                    let count = *self.after(made)?.get(axis)?;
                    if made == name {
                        return Some((axis, (start..start + count).collect()));
                    }
                    start += count;
                }
                return None;
            }
            "Slice" => {
                let step = if input(node, 4).is_some() { number(4)? } else { 1 };
                let step = usize::try_from(step).ok().filter(|step| *step > 0)?;
                (within(number(1)?)?..within(number(2)?)?).step_by(step).collect()
            }
            _ => vec![within(number(1)?)?],
        };
        Some((axis, places))
    }

    /// The numbers of `name` times those of a tensor that is the same for all heads.
    fn multiplied(&mut self, name: &'s str, by: &'s str) -> Option<HeadValue<'s>> {
        let own = self.after(name)?;
        let mut lengths = self.site.lengths(by)?;
        let missing = (self.before.len() + own.len()).checked_sub(lengths.len())?;
        lengths.splice(0..0, std::iter::repeat_n(1, missing));
        let (before, after) = lengths.split_at(self.before.len());
        let is_same = |axis: usize| before[axis] == self.before[axis];
        let fits = (before[0] == 1 || is_same(0)) && is_same(self.order.rows()) && before[self.order.heads()] == 1;
        let is_broadcast = own.iter().zip(after).all(|(own, by)| by == own || *by == 1);
        if !fits || !is_broadcast || !self.site.is_float(by) {
            return None;
        }
        let mut value = self.value(name)?;
        for (number, terms) in value.numbers.iter_mut().enumerate() {
            let (mut place, mut step, mut rest) = (0, 1, number);
            for (own, by) in own.iter().zip(after).rev() {
                place += rest % own % by * step;
                step *= by;
                rest /= own;
            }
            for term in terms {
                if term.factor.replace((by, place)).is_some() {
                    return None;
                }
            }
        }
        Some(value)
    }
}
