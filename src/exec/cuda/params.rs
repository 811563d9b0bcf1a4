//! The parameter blocks of `csrc/params.h`, which says what each field means.

use std::mem::size_of;

/// A parameter block: plain data without padding.
pub trait Params: sealed::Params {}

mod sealed {
    /// Only what bindgen bound is one.
    pub trait Params: Copy {}
}

macro_rules! params {
    ($name:ident: $($type:ty),*) => {
        // No padding, so that every byte of a block is initialised.
        const _: () = assert!(0 $(+ size_of::<$type>())* == size_of::<$name>());
        impl sealed::Params for $name {}
        impl Params for $name {}
    };
}

#[allow(missing_docs, clippy::useless_transmute)]
mod bound {
    use super::{Params, sealed, size_of};
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/csrc/params.rs"));
}
pub use bound::*;
