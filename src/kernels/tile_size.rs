//! The size of the innermost product.

/// Numbers that are computed side by side.
pub const LANES: usize = 16;
/// Columns of a panel.
pub const COLUMNS: usize = 32;
/// Rows of one of a block's two groups.
pub const GROUP_ROWS: usize = 16;
/// Rows of a block.
pub const ROWS: usize = 2 * GROUP_ROWS;
