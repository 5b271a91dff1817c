//! Linear layers in int8.

use super::*;

/// Multiplies rows by a matrix, and compares the results with those wanted for it.
fn product<E: Element>(what: &str, bound: f64, [rows, columns, depth]: [usize; 3], left: &[E], right: &[f32]) {
    let value = |column: usize, at: usize| right[at * columns + column];
    let shape = PanelShape { columns, taps: 1, depth };
    let packed = pack_int8(shape, value);
    assert_eq!(packed.len(), shape.packed_len::<u8>());
    let (bias, residual) = (numbers(columns, 3), numbers(rows * columns, 4));
    let sum = |row: usize, column: usize| {
        let products = (0..depth).map(|at| f64::from(left[row * depth + at].to_f32()) * f64::from(value(column, at)));
        products.sum::<f64>() + f64::from(bias[column]) + f64::from(residual[row * columns + column])
    };
    let wanted: Vec<f64> = (0..rows * columns).map(|at| sum(at / columns, at % columns)).collect();
    let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), ..Epilogue::default() };
    let product = Int8Product { left, rows_per_image: rows, packed: &packed, shape, epilogue };
    everywhere::<E>(&format!("{what} {rows}x{columns}x{depth}"), bound, &wanted, |set, threads, out| {
        product.run(set, threads, out);
    });
}

const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [7, 33, 40],
    [16, 32, 64],
    [33, 31, 384],
    [50, 100, 385],
    [17, 64, 513],
    [20, 70, 1152],
    [33, 320, 320],
    [100, 96, 2560],
];

/// Whole numbers of which each strip has the largest are those of the operands, and only the sums are rounded.
#[test]
fn whole_numbers_are_exact() {
    // The largest at one of eight depths, so that every strip has some.
    let whole = |values: Vec<f32>, depth_of: &dyn Fn(usize) -> usize| -> Vec<f32> {
        let number = |(at, x): (usize, &f32)| if depth_of(at).is_multiple_of(8) { 127.0 } else { (x * 127.0).round() };
        values.iter().enumerate().map(number).collect()
    };
    for shape @ [rows, columns, depth] in SHAPES {
        let left = whole(numbers(rows * depth, 1), &|at| at % depth);
        let right = whole(numbers(depth * columns, 2), &|at| at / columns);
        product::<f32>("whole numbers", 2e-7, shape, &left, &right);
    }
}

#[test]
fn others_are_near() {
    for shape @ [rows, columns, depth] in SHAPES {
        let right = numbers(columns * depth, 2);
        product::<f32>("float32", 2e-2, shape, &operands(rows * depth, 1), &right);
        product::<bf16>("bf16", 2e-2, shape, &operands(rows * depth, 1), &right);
    }
}

/// A number of another size takes the digits of its strip only.
#[test]
fn large_numbers_are_their_strips_own() {
    let [rows, columns, depth] = [3, 32, 4 * 384];
    let mut left = numbers(rows * depth, 1);
    let mut right = numbers(columns * depth, 2);
    left.iter_mut().step_by(depth).for_each(|x| *x = 1e4);
    right[..columns].fill(0.0);
    // A quarter of the others is lost beside it.
    right[columns..384 * columns].fill(0.0);
    product::<f32>("a large number", 2e-2, [rows, columns, depth], &left, &right);
}

/// Zeros and numbers that are none, which a later check is to find.
#[test]
fn what_is_not_finite_stays_so() {
    let (columns, depth) = (32, 40);
    let shape = PanelShape { columns, taps: 1, depth };
    let made = |left: &[f32], packed: &[u8], set| {
        let mut out = vec![1.0_f32; 2 * columns];
        let epilogue = Epilogue::default();
        Int8Product { left, rows_per_image: 2, packed, shape, epilogue }.run(set, &OneThread, &mut out);
        out
    };
    for (value, is_finite) in [(0.0, true), (f32::NAN, false), (-f32::NAN, false), (f32::INFINITY, false)] {
        let weights = pack_int8(shape, |column, at| (column + at) as f32);
        let mut left = vec![0.0_f32; 2 * depth];
        left[3] = value;
        let damaged = pack_int8(shape, |column, at| if (column, at) == (5, 3) { value } else { (column + at) as f32 });
        for set in sets() {
            let out = made(&left, &weights, set);
            assert!(out[..columns].iter().all(|x| x.is_finite() == is_finite), "{value}, {}", set.name());
            assert!(out[columns..].iter().all(|x| *x == 0.0), "{value}, {}", set.name());
            let out = made(&[1.0; 80], &damaged, set);
            let is_expected = |(at, x): (usize, &f32)| x.is_finite() == (at % columns != 5 || is_finite);
            assert!(out.iter().enumerate().all(is_expected), "a weight {value}, {}", set.name());
        }
    }
}
