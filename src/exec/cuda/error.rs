//! What a device cannot do, as values that name what failed.

use crate::error::ExecError;
use cudarc::driver::{DriverError, sys::CUresult};
use thiserror::Error;

/// Why a CUDA call, or something that needs one, failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CudaError {
    /// No driver on this machine.
    #[error("there is no CUDA driver here: libcuda.so.1 was not found; it comes with NVIDIA's driver")]
    NoDriver,
    /// No such device.
    #[error("there is no CUDA device {ordinal}: the driver sees {count}")]
    NoDevice {
        /// Which was wanted.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The library was built without its kernels.
    #[error("{0}")]
    NoKernels(&'static str),
    /// A kernel that this build does not have for this device.
    #[error("there is no kernel {name} for {device} (sm_{capability}) in this build, which has {known}")]
    NoKernel {
        /// Its name in `csrc/table.h`.
        name: String,
        /// The device.
        device: String,
        /// Its compute capability, as in sm_90.
        capability: u32,
        /// What the build has.
        known: String,
    },
    /// A kernel that wants more shared memory than this device has.
    #[error(
        "the kernel {name} needs {asked} bytes of shared memory, and {device} gives a cta {most} at most"
    )]
    NoShared {
        /// Its name in `csrc/table.h`.
        name: String,
        /// The device.
        device: String,
        /// Bytes that it needs.
        asked: u32,
        /// Bytes that there are.
        most: u32,
    },
    /// A library that is loaded when it is needed.
    #[error("{library} was not found: {hint}")]
    NoLibrary {
        /// Which.
        library: &'static str,
        /// Where it may come from.
        hint: &'static str,
    },
    /// Device or pinned memory that is not to be had.
    #[error("{what} needs {asked} bytes, and {free} are free")]
    OutOfMemory {
        /// What for.
        what: String,
        /// How many.
        asked: u64,
        /// How many there are.
        free: u64,
    },
    /// Values that do not go together, found before the device was asked.
    #[error("{0}")]
    Misfit(String),
    /// A call that the driver or a library refused.
    #[error("{what} failed: {name} ({code}), {meaning}{}", if *sticky { "; only a new process cures this" } else { "" })]
    Call {
        /// What was tried.
        what: String,
        /// The code.
        code: u32,
        /// Its name.
        name: String,
        /// What it means.
        meaning: String,
        /// Whether every later call of this context fails too.
        sticky: bool,
    },
}

impl From<CudaError> for ExecError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Misfit(what) => Self::Unsupported(what),
            other => Self::DeviceLost(other.to_string()),
        }
    }
}

/// Codes after which the context is lost: faults of kernels, and of the hardware.
const STICKY: &[CUresult] = &[
    CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
    CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    CUresult::CUDA_ERROR_ASSERT,
    CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
    CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUresult::CUDA_ERROR_INVALID_PC,
    CUresult::CUDA_ERROR_LAUNCH_FAILED,
    CUresult::CUDA_ERROR_SYSTEM_NOT_READY,
];

/// Names what was tried where the driver refused it.
pub(super) trait Trying<T> {
    /// The value, or an error that says what failed.
    fn trying(self, what: impl FnOnce() -> String) -> Result<T, CudaError>;
}

impl<T> Trying<T> for Result<T, DriverError> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T, CudaError> {
        self.map_err(|error| {
            let text = |of: Result<&std::ffi::CStr, DriverError>| {
                of.map_or_else(|_| "unknown".into(), |text| text.to_string_lossy().into_owned())
            };
            CudaError::Call {
                what: what(),
                code: error.0 as u32,
                name: text(error.error_name()),
                meaning: text(error.error_string()),
                sticky: STICKY.contains(&error.0),
            }
        })
    }
}
