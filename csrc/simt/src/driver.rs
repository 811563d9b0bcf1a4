//! A CUDA driver without a GPU: what the library loads as `libcuda.so` and `libcublasLt.so` are then emulated devices,
//! which run the kernels of `csrc/table.h`. `csrc/simt/driver` says what they are, and in what order they work.

use libloading::Library;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::OnceLock;

/// Where work waits until somebody waits for it.
pub const SM90: usize = 0;
/// Where work runs in any order that its streams allow.
pub const SM80: usize = 1;
/// Where a cta has the least shared memory.
pub const SM86: usize = 2;

/// CUDA's codes of what a test may have a call fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Failure {
    /// No memory is left.
    OutOfMemory = 2,
    /// Memory of the device is broken, and the context lost.
    EccUncorrectable = 214,
    /// A kernel failed, and the context is lost.
    LaunchFailed = 719,
}

/// Makes it the driver of this process, if it is not yet; says whether it could be.
///
/// # Panics
/// If it was built but cannot be loaded.
pub fn install() -> bool {
    library().is_some()
}

/// The call of this name, without its version, that comes after `after` more of them fails so, once.
///
/// # Panics
/// If the driver is not installed.
pub fn fail(call: &str, after: u64, failure: Failure) {
    let call = CString::new(call).expect("names have no zeros");
    // SAFETY: `cuda.cpp` defines it so; the name is copied.
    unsafe {
        symbol::<unsafe extern "C" fn(*const c_char, u64, u32)>("simt_fail")(
            call.as_ptr(),
            after,
            failure as u32,
        )
    }
}

/// Runs `work` while calls of this name, which must yield nothing, do nothing.
///
/// # Panics
/// If the driver is not installed.
pub fn ignoring<T>(call: &str, work: impl FnOnce() -> T) -> T {
    // SAFETY: `cuda.cpp` defines it so; the name is copied.
    let ignore = |call: &CString| unsafe {
        symbol::<unsafe extern "C" fn(*const c_char)>("simt_ignore")(call.as_ptr());
    };
    ignore(&CString::new(call).expect("names have no zeros"));
    let done = work();
    ignore(&CString::default());
    done
}

/// What the driver defines beside CUDA's functions.
///
/// # Safety
/// It must be of the type `T`.
unsafe fn symbol<T: Copy>(name: &str) -> T {
    let library = library().expect("the driver is installed");
    // SAFETY: the caller knows the type.
    *unsafe { library.get::<T>(name) }.expect("the driver defines it")
}

/// The driver. A library that is loaded stays so, and is found by its name alone afterwards.
fn library() -> Option<&'static Library> {
    static DRIVER: OnceLock<Option<[Library; 2]>> = OnceLock::new();
    let libraries = DRIVER.get_or_init(|| {
        let folder = Path::new(env!("FLYBALL_SIMT_DRIVER"));
        let built = folder.join("libcuda.so").exists();
        // SAFETY: these are the libraries that this crate was built with; what they run when they are loaded is the
        // initialisation of their own data.
        let load =
            |name: &str| unsafe { Library::new(folder.join(name)) }.unwrap_or_else(|e| panic!("{e:?}"));
        built.then(|| ["libcuda.so", "libcublasLt.so"].map(load))
    });
    libraries.as_ref().map(|[driver, _]| driver)
}
