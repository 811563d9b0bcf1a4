//! Matrix products by cuBLASLt: `output = input * transposed(weight)`, each planned once and run as often as wanted.
//!
//! A wall: `unsafe` is here because cuBLASLt takes raw handles and addresses. What makes it sound: every handle is
//! owned by a type that destroys it once, and a product runs only on buffers that hold its whole matrices.
//!
//! | matrix | row-major shape | how cuBLASLt, which is column-major, sees it |
//! | --- | --- | --- |
//! | weight | `[n, k]` | A, `[k, n]`, transposed |
//! | input | `[m, k]` | B, `[k, m]` |
//! | output | `[m, n]` | D, `[n, m]` |

#![allow(unsafe_code)]

use super::{Buffer, CudaError, Device, Stream, Trying};
use cudarc::cublaslt::{result, result::CublasError, sys};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// What cuBLAS recommends for Hopper, and enough for others.
pub const WORKSPACE: usize = 32 << 20;

/// Elements of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// bf16.
    Bf16,
    /// f16.
    F16,
    /// f32, of outputs.
    F32,
}

impl Element {
    fn cuda(self) -> sys::cudaDataType {
        match self {
            Self::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            Self::F16 => sys::cudaDataType::CUDA_R_16F,
            Self::F32 => sys::cudaDataType::CUDA_R_32F,
        }
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// The library, opened for a device.
#[derive(Debug)]
pub struct Blas {
    device: Device,
    handle: sys::cublasLtHandle_t,
}

// SAFETY: a cuBLASLt handle may be used from any thread, one at a time or together, as its manual says.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once; what was planned holds it. Nothing can be done about
        // a failure.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// How one product is computed.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm(sys::cublasLtMatmulAlgo_t);

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the input and the output.
    pub m: usize,
    /// Rows of the weight, columns of the output.
    pub n: usize,
    /// Columns of the input and the weight.
    pub k: usize,
    /// Elements from a row of the output to the next, at least `n`.
    pub stride: usize,
    /// Of input and weight.
    pub input: Element,
    /// Of the output.
    pub output: Element,
}

impl Blas {
    /// Opens the library.
    ///
    /// # Errors
    /// If it is not found, or refuses the device.
    pub fn open(device: &Device) -> Result<Arc<Self>, CudaError> {
        // SAFETY: it tries to load the library, whose initialisation is its own.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoLibrary {
                library: "libcublasLt.so.13",
                hint: "it comes with CUDA's toolkit, or in Python wheels under site-packages/nvidia/cu13/lib; \
                       set LD_LIBRARY_PATH to its folder",
            });
        }
        device.context.bind_to_thread().trying(|| "opening cuBLASLt".into())?;
        let handle = result::create_handle().map_err(|e| failed("opening cuBLASLt", e))?;
        Ok(Arc::new(Self { device: device.clone(), handle }))
    }

    /// Plans a product by the algorithm that cuBLASLt thinks fastest.
    ///
    /// # Errors
    /// If it knows none.
    pub fn plan(self: &Arc<Self>, shape: Shape) -> Result<Product, CudaError> {
        self.plan_with(shape, None, false)
    }

    /// The algorithm for all products of this `n` and `k` whose rows must not depend on `m`: the fastest for 128
    /// rows among those that add up each output in one go. It wants `m` in multiples of 128.
    ///
    /// # Errors
    /// If cuBLASLt knows none.
    pub fn pinned(self: &Arc<Self>, shape: Shape) -> Result<Algorithm, CudaError> {
        Ok(self.plan_with(Shape { m: 128, ..shape }, None, true)?.algorithm)
    }

    /// Plans a product by this algorithm.
    ///
    /// # Errors
    /// If it cannot do the shape.
    pub fn plan_pinned(self: &Arc<Self>, shape: Shape, algorithm: Algorithm) -> Result<Product, CudaError> {
        self.plan_with(shape, Some(algorithm), true)
    }

    fn plan_with(
        self: &Arc<Self>,
        shape: Shape,
        pinned: Option<Algorithm>,
        whole_sums: bool,
    ) -> Result<Product, CudaError> {
        let what = format!("planning the product {shape:?}");
        let error = |e| failed(&what, e);
        let Shape { m, n, k, stride, input, output } = shape;
        let parts = Parts {
            desc: Desc::new().map_err(error)?,
            weight: Layout::new(input, k, n, k).map_err(error)?,
            input: Layout::new(input, k, m, k).map_err(error)?,
            output: Layout::new(output, n, m, stride).map_err(error)?,
        };
        let algorithm = match pinned {
            Some(algorithm) => parts.check(self, algorithm),
            None => parts.fastest(self, whole_sums),
        };
        Ok(Product { blas: self.clone(), shape, parts, algorithm: algorithm.map_err(error)? })
    }
}

fn failed(what: &str, error: CublasError) -> CudaError {
    CudaError::Call {
        what: what.into(),
        code: error.0 as u32,
        name: format!("{:?}", error.0),
        meaning: "cuBLASLt refused it".into(),
        sticky: false,
    }
}

/// A product that can be run.
#[derive(Debug)]
pub struct Product {
    blas: Arc<Blas>,
    shape: Shape,
    parts: Parts,
    algorithm: Algorithm,
}

impl Product {
    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Starts it. Rows of `input` beyond what matters may hold anything: they make rows of their own.
    ///
    /// # Errors
    /// If a buffer is too short, or cuBLASLt or the device fails.
    pub fn run(
        &self,
        stream: &Stream,
        input: &Buffer<u8>,
        weight: &Buffer<u8>,
        output: &Buffer<u8>,
        workspace: &Buffer<u8>,
    ) -> Result<(), CudaError> {
        let Shape { m, n, k, stride, input: narrow, output: wide } = self.shape;
        let holds = [
            (input, m * k * narrow.bytes()),
            (weight, n * k * narrow.bytes()),
            (output, m * stride * wide.bytes()),
        ];
        if let Some((buffer, bytes)) = holds.iter().find(|(buffer, bytes)| buffer.len() < *bytes) {
            let what = format!("{:?} wants {bytes} bytes of a buffer of {}", self.shape, buffer.len());
            return Err(CudaError::Misfit(what));
        }
        let (one, zero) = (1.0_f32, 0.0_f32);
        let device = |buffer: &Buffer<u8>| buffer.address() as *mut c_void;
        // SAFETY: all handles are alive; the buffers hold the whole matrices, as was checked, and are alive until
        // what was started is done, since freeing waits; the scalars are read before this returns.
        let code = unsafe {
            result::matmul(
                self.blas.handle,
                self.parts.desc.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                device(weight),
                self.parts.weight.0,
                device(input),
                self.parts.input.0,
                device(output),
                self.parts.output.0,
                device(output),
                self.parts.output.0,
                &raw const self.algorithm.0,
                device(workspace),
                workspace.len().min(WORKSPACE),
                stream.raw.cu_stream().cast(),
            )
        };
        code.map_err(|e| failed(&format!("the product {:?}", self.shape), e))
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Device {
        &self.blas.device
    }
}

/// The descriptions of a product.
#[derive(Debug)]
struct Parts {
    desc: Desc,
    weight: Layout,
    input: Layout,
    output: Layout,
}

// SAFETY: descriptions are memory of the library that nobody changes after they were made.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Parts {
    /// The first choice of cuBLASLt; with `whole_sums`, only among algorithms that do not split `k` over ctas.
    fn fastest(&self, blas: &Blas, whole_sums: bool) -> Result<Algorithm, CublasError> {
        let preference = Preference::new(whole_sums)?;
        // SAFETY: all handles are alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                blas.handle,
                self.desc.0,
                self.weight.0,
                self.input.0,
                self.output.0,
                self.output.0,
                preference.0,
            )
        };
        Ok(Algorithm(found?.algo))
    }

    /// The algorithm, if it can do this within the workspace.
    fn check(&self, blas: &Blas, algorithm: Algorithm) -> Result<Algorithm, CublasError> {
        let mut found = MaybeUninit::uninit();
        // SAFETY: all handles are alive; the result is written where the call succeeds.
        let found: sys::cublasLtMatmulHeuristicResult_t = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                blas.handle,
                self.desc.0,
                self.weight.0,
                self.input.0,
                self.output.0,
                self.output.0,
                &raw const algorithm.0,
                found.as_mut_ptr(),
            )
            .result()?;
            found.assume_init()
        };
        if found.workspaceSize > WORKSPACE {
            return Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED));
        }
        Ok(algorithm)
    }
}

/// A description of a product: f32 sums, the weight transposed.
#[derive(Debug)]
struct Desc(sys::cublasLtMatmulDesc_t);

impl Desc {
    fn new() -> Result<Self, CublasError> {
        let desc = Self(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?);
        let transposed = 1_i32; // CUBLAS_OP_T
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // SAFETY: the description is alive, and the attribute has this type.
        unsafe {
            result::set_matmul_desc_attribute(
                desc.0,
                attribute,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )?;
        }
        Ok(desc)
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A column-major matrix, its columns `stride` elements apart.
#[derive(Debug)]
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(element: Element, rows: usize, columns: usize, stride: usize) -> Result<Self, CublasError> {
        result::create_matrix_layout(element.cuda(), rows as u64, columns as u64, stride as i64).map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may take.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(whole_sums: bool) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        if whole_sums {
            let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
            preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none)?;
        }
        Ok(preference)
    }

    fn set<T: Copy>(
        &self,
        name: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), CublasError> {
        // SAFETY: the preference is alive, and both attributes have the types that are given above.
        unsafe { result::set_matmul_pref_attribute(self.0, name, (&raw const *value).cast(), size_of::<T>()) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
