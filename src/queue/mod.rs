//! The waiting requests, in order: ranked sets in groups, and the smallest head over all groups.
//!
//! A waiting request stands in a group with a rank that does not change while it waits. A policy that
//! wants to move many requests at once moves the offset of their group instead, so that a step costs
//! O(changed · log waiting) and never O(waiting). All memory is taken at construction.
//!
//! The queue knows neither what a rank means nor why a group is open; it refuses to know clocks,
//! policies and blocks beyond the one number of headroom that a group carries for its policy.

pub mod groups;
pub mod ordered;

pub use groups::{Groups, Head};
pub use ordered::{Entry, Nodes, OrderedSet, Position};
