//! Compiles the CUDA kernels where nvcc is found, and writes the list of what there is for `exec::cuda`.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `FLYBALL_NVCC` | the nvcc to use; else that of `CUDA_HOME`, of `PATH`, of `tools/get-nvcc` |
//! | `FLYBALL_KERNELS` | `all`, `daily` (the table without its FB_MORE) or `none`; by default `all` in release builds |
//! | `FLYBALL_CUDA_ARCHS` | for which architectures, by default `sm_80,sm_90a` |
//! | `FLYBALL_KERNELS_TABLE` | a file to write what each kernel takes to |
//!
//! The build fails if a kernel spills, has a stack, or takes more registers than its ctas may.

#[cfg(feature = "bindgen")]
#[path = "csrc/build/bind.rs"]
mod bind;
#[cfg(feature = "cuda")]
#[path = "csrc/build/cubin.rs"]
mod cubin;
#[cfg(feature = "cuda")]
#[path = "csrc/build/kernels.rs"]
mod kernels;
#[cfg(feature = "cuda")]
#[path = "csrc/build/nvcc.rs"]
mod nvcc;
#[cfg(feature = "cuda")]
#[path = "csrc/build/table.rs"]
mod table;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "bindgen")]
    bind::params();
    #[cfg(feature = "cuda")]
    kernels::build();
}
