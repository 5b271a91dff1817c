//! Model directories: what is said of damaged ones, which layouts and roles are recognised, and which facts follow.

mod damage;
mod facts;
mod families;
mod layouts;
mod report;
mod roles;
pub mod writer;
