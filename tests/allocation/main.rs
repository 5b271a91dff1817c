//! The tests that count allocations, which need an allocator of the whole process: the denoising loop allocates nothing
//! large, and no reader of files takes absurd memory.

mod allocator;
mod denoising;
#[path = "../it/common/fixtures.rs"]
mod fixtures;
#[path = "../it/common/folders.rs"]
mod folders;
mod fuzz;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;
