//! A call of an operator: its inputs, outputs and attributes.

use half::bf16;
use ort::operator::{ComputeContext, KernelContext, OperatorInput, OperatorOutput};
use ort::value::{PrimitiveTensorElementType, TensorElementType, ValueRef};

use crate::kernels::{Activation, Element, OwnOperator, Threads};

/// An element type that tensors of ONNX Runtime have as well.
pub trait Stored: Element + PrimitiveTensorElementType {
    /// The type of such tensors.
    const STORED: TensorElementType;
}

impl Stored for f32 {
    const STORED: TensorElementType = TensorElementType::Float32;
}

impl Stored for bf16 {
    const STORED: TensorElementType = TensorElementType::Bfloat16;
}

/// One of the operators.
pub trait Compute: Send + Sync + Sized + 'static {
    /// The operator.
    const OPERATOR: OwnOperator;

    /// The inputs, for operands of `E`; optional ones last.
    fn inputs<E: Stored>() -> Vec<OperatorInput>;

    /// The outputs, of type `O`.
    fn outputs<O: Stored>() -> Vec<OperatorOutput> {
        vec![OperatorOutput::required(O::STORED)]
    }

    /// Reads the attributes.
    fn read(node: &KernelContext<'_>) -> ort::Result<Self>;

    /// Computes the outputs.
    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()>;
}

/// A call of an operator.
pub struct Call<'c> {
    /// ONNX Runtime's context of the call.
    pub context: &'c ComputeContext,
    /// The threads that share the work.
    pub threads: usize,
}

impl Threads for Call<'_> {
    fn count(&self) -> usize {
        self.threads
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.threads <= 1 || self.context.par_for(tasks, 0, work).is_err() {
            (0..tasks).for_each(work);
        }
    }
}

/// The values of an input, and its lengths.
pub type InputValues<'v, T> = (Vec<usize>, &'v [T]);

impl Call<'_> {
    /// Returns an input; `None` if it is left out.
    pub fn value(&self, at: usize) -> ort::Result<Option<ValueRef<'_>>> {
        if at < self.context.num_inputs()? { self.context.input(at) } else { Ok(None) }
    }

    /// Computes an output of a shape.
    pub fn write<O: Stored>(&self, at: usize, shape: &[usize], work: impl FnOnce(&mut [O])) -> ort::Result<()> {
        let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
        if let Some(mut value) = self.context.output(at, shape)? {
            work(value.try_extract_tensor_mut::<O>()?.1);
        }
        Ok(())
    }
}

/// Returns the lengths and values of an input.
pub fn values<'v, T: PrimitiveTensorElementType>(value: &'v ValueRef<'_>) -> ort::Result<InputValues<'v, T>> {
    let (shape, values) = value.try_extract_tensor::<T>()?;
    Ok((shape.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect(), values))
}

/// Returns the values of an input that may be left out.
pub fn floats<'v>(value: &'v Option<ValueRef<'_>>) -> ort::Result<Option<&'v [f32]>> {
    value.as_ref().map(|value| Ok(values::<f32>(value)?.1)).transpose()
}

/// Requires an input or attribute.
pub fn needed<T>(value: Option<T>, what: &str) -> ort::Result<T> {
    value.ok_or_else(|| ort::Error::new(format!("{what} is missing")))
}

/// Requires that an input has the length that follows from the others.
pub fn check(is_right: bool, what: &str) -> ort::Result<()> {
    if is_right { Ok(()) } else { Err(ort::Error::new(format!("{what} does not fit the other inputs"))) }
}

/// Returns a whole number of a node's attributes.
pub fn whole(node: &KernelContext<'_>, name: &str, otherwise: usize) -> usize {
    node.get::<i64>(name).and_then(|value| usize::try_from(value).ok()).unwrap_or(otherwise)
}

/// Returns the activation that a node's attribute names.
pub fn activation(node: &KernelContext<'_>) -> ort::Result<Activation> {
    let name = node.get::<String>("activation").unwrap_or_default();
    needed(Activation::from_name(&name), "an activation of this name")
}

/// A float32 input.
pub const FLOAT: OperatorInput = OperatorInput::required(TensorElementType::Float32);
/// A float32 input that may be left out.
pub const OPTIONAL: OperatorInput = OperatorInput::optional(TensorElementType::Float32);
