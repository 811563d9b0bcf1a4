//! The parameter blocks of `csrc/params.h`, which says what each field means.

use std::mem::{size_of, size_of_val};

/// A parameter block: plain data without padding.
pub trait Params: sealed::Params {}

mod sealed {
    /// Only what bindgen bound is one.
    pub trait Params {}
}

macro_rules! params {
    ($name:ident: $($type:ty),*) => {
        // No padding, so that every byte of a block is initialised.
        const _: () = assert!(0 $(+ size_of::<$type>())* == size_of::<$name>());
        impl sealed::Params for $name {}
        impl Params for $name {}
    };
}

#[allow(missing_docs)]
mod bound {
    use super::{Params, sealed, size_of};
    include!("../../params.rs");
}
pub use bound::*;

/// Of the probes: a buffer of 64 words.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Where it is.
    pub buffer: Address,
}
params!(Probe: Address);

/// The bytes of a block, as a launch takes them.
pub fn bytes_of<P: Params>(params: &P) -> &[u8] {
    // SAFETY: a block is plain data without padding, as was proven above; it is borrowed as long.
    unsafe { std::slice::from_raw_parts((&raw const *params).cast::<u8>(), size_of_val(params)) }
}
