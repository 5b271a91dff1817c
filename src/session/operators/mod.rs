//! The operators of [`kernels`](crate::kernels) as ONNX Runtime sees them.

mod attention;
mod call;
mod columns;
mod head_norm;
mod int8_product;
mod norm;
mod operand;
mod product;

use std::marker::PhantomData;

use half::bf16;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};

use crate::kernels::DOMAIN;
use attention::AttentionKernel;
use call::{Call, Compute, Stored};
use head_norm::HeadNormKernel;
use int8_product::Int8ProductKernel;
use norm::{GroupNormKernel, RowNormKernel};
use operand::OperandKernel;
use product::ProductKernel;

/// Returns the domain with all operators, for graphs that run on `threads` threads.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    let domain = OperatorDomain::new(DOMAIN)?;
    let domain = add::<f32, f32>(domain, threads)?;
    let domain = add::<bf16, f32>(domain, threads)?;
    let domain = add::<bf16, bf16>(domain, threads)?;
    domain.add(Own::<GroupNormKernel, f32, bf16>::new(threads))
}

fn add<E: Stored, O: Stored>(domain: OperatorDomain, threads: usize) -> ort::Result<OperatorDomain> {
    domain
        .add(Own::<ProductKernel, E, O>::new(threads))?
        .add(Own::<Int8ProductKernel, E, O>::new(threads))?
        .add(Own::<GroupNormKernel, E, O>::new(threads))?
        .add(Own::<RowNormKernel, E, O>::new(threads))?
        .add(Own::<HeadNormKernel, E, O>::new(threads))?
        .add(Own::<AttentionKernel, E, O>::new(threads))?
        .add(Own::<OperandKernel, E, O>::new(threads))
}

/// The kind of an operator, and the types of its operands and results.
type Types<C, E, O> = fn() -> (C, E, O);

/// An operator for operands and results of two types.
struct Own<C, E, O> {
    name: String,
    threads: usize,
    types: PhantomData<Types<C, E, O>>,
}

impl<C: Compute, E: Stored, O: Stored> Own<C, E, O> {
    fn new(threads: usize) -> Self {
        Self { name: C::OPERATOR.name(E::TYPE, O::TYPE), threads, types: PhantomData }
    }
}

impl<C: Compute, E: Stored, O: Stored> Operator for Own<C, E, O> {
    type Kernel<'attr> = OwnKernel<C, E, O>;

    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        C::inputs::<E>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        C::outputs::<O>()
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        Ok(OwnKernel { compute: C::read(node)?, threads: self.threads, types: PhantomData })
    }
}

/// A node's operator. It holds nothing that a run changes.
struct OwnKernel<C, E, O> {
    compute: C,
    threads: usize,
    types: PhantomData<fn() -> (E, O)>,
}

impl<C: Compute, E: Stored, O: Stored> Kernel for OwnKernel<C, E, O> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call { context, threads: self.threads };
        self.compute.compute::<E, O>(&call)
    }
}
