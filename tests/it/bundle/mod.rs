//! Model directories: errors for damaged ones, recognized layouts and roles, and the resulting facts.

mod damage;
mod facts;
mod families;
mod layouts;
mod report;
mod roles;
pub mod writer;
