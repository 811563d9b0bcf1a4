"""Compiles the FlashInfer kernels that tools/gpu-check times against ours, on a machine without a GPU.

Run in an environment that holds flashinfer-python 0.6.6, apache-tvm-ffi and PyTorch (its CUDA headers serve). Writes
OUT/NAME/NAME.so, which FlashInfer loads as prebuilt modules: what the table needs, for sm_90a, and nothing else. What
is left out of a module (mask modes, tile sizes) stays an undefined symbol that is looked up only if it is called.

    python pack_flashinfer.py --nvcc PATH --out DIR [--only NAME,...] [--jobs N]
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

os.environ.setdefault("FLASHINFER_CUDA_ARCH_LIST", "9.0a")


def specs(nvcc):
    """(short name, JitSpec, predicate that keeps a source), most wanted first."""
    os.environ["CUDA_HOME"] = str(pathlib.Path(nvcc).parents[1])
    import torch
    from flashinfer.jit import activation, attention, norm, page, sampling, xqa

    bf16, e4m3, index = torch.bfloat16, torch.float8_e4m3fn, torch.int32

    def everything(_):
        return True

    def only(*names):
        return lambda source: not re.search(r"_kernel_mask_\d", source.name) or source.name in names

    def decode(kv):
        return attention.gen_batch_decode_module(bf16, kv, bf16, index, 128, 128, 0, False, False)

    def prefill(backend, kv):
        return attention.gen_batch_prefill_module(
            backend, bf16, kv, bf16, index, 128, 128, 0, False, False, False
        )

    def multi_query(kv):
        return xqa.gen_xqa_module(bf16, kv, 16, 128, 4, False, bf16)

    return [
        ("xqa_bf16", multi_query(bf16), everything),
        ("sampling", sampling.gen_sampling_module(), everything),
        ("fa2_bf16", prefill("fa2", bf16), only("batch_prefill_paged_kernel_mask_0.cu")),
        ("fa3_bf16", prefill("fa3", bf16), only("batch_prefill_paged_sm90_kernel_mask_1.cu")),
        ("xqa_e4m3", multi_query(e4m3), everything),
        ("norm", norm.gen_norm_module(), everything),
        ("page", page.gen_page_module(), everything),
        ("silu", activation.gen_act_and_mul_module("silu"), everything),
        ("fa2_e4m3", prefill("fa2", e4m3), only("batch_prefill_paged_kernel_mask_0.cu")),
        ("decode_bf16", decode(bf16), everything),
        ("decode_e4m3", decode(e4m3), everything),
    ]


def includes():
    import flashinfer.jit.env as env
    import tvm_ffi

    cuda = pathlib.Path(os.environ["CUDA_HOME"])
    site = pathlib.Path(sysconfig.get_path("purelib"))
    folders = [
        # PyTorch's own runtime, cuRAND and cuBLAS: they fit each other, and the compiler of the same release.
        site / "nvidia" / "cu13" / "include",
        cuda / "include",
        cuda / "include" / "cccl",
        pathlib.Path(tvm_ffi.libinfo.find_include_path()),
        pathlib.Path(tvm_ffi.libinfo.find_dlpack_include_path()),
        env.FLASHINFER_INCLUDE_DIR,
        env.FLASHINFER_CSRC_DIR,
        *env.CUTLASS_INCLUDE_DIRS,
        env.SPDLOG_INCLUDE_DIR,
    ]
    return [word for folder in folders for word in ("-isystem", str(folder))]


def compile_one(nvcc, source, spec, work):
    target = work / (source.name + ".o")
    if source.suffix != ".cu":
        command = ["c++", "-c", "-O2", "-std=c++17", "-fPIC", *includes(), *(spec.extra_cflags or [])]
    else:
        command = [
            nvcc, "-c", *includes(), "--compiler-options=-fPIC", "--expt-relaxed-constexpr",
            "-static-global-template-stub=false", "-DPy_LIMITED_API=0x03090000", "-D_GLIBCXX_USE_CXX11_ABI=1",
            "-DFLASHINFER_ENABLE_F16", "-DFLASHINFER_ENABLE_BF16", "-DFLASHINFER_ENABLE_FP8_E4M3",
            "-DFLASHINFER_ENABLE_FP8_E5M2",
        ]  # fmt: skip
        flags = [flag for flag in spec.extra_cuda_cflags or [] if not flag.startswith("-gencode")]
        command += flags + ["-gencode=arch=compute_90a,code=sm_90a", "-Wno-deprecated-gpu-targets"]
        if not any(flag.startswith("-std") for flag in flags):
            command.append("-std=c++17")
    with open(work / (source.name + ".log"), "w") as log:
        done = subprocess.run([*command, str(source), "-o", str(target)], stdout=log, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError(f"{source.name}: see {log.name}")
    return target


def link(name, objects, out, work):
    cuda = pathlib.Path(os.environ["CUDA_HOME"])
    stub = work / "libcuda.so.1"
    subprocess.run(
        ["c++", "-shared", "-fPIC", "-xc", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", str(stub)], check=True
    )
    runtime = next(iter(sorted(cuda.glob("lib*/libcudart.so*"))))
    (out / name).mkdir(parents=True, exist_ok=True)
    library = out / name / f"{name}.so"
    subprocess.run(
        ["c++", "-shared", *map(str, objects), "-Wl,-z,lazy", "-Wl,--no-as-needed", str(runtime), str(stub),
         "-Wl,--strip-all", "-o", str(library)],
        check=True,
    )  # fmt: skip
    return library


def build(nvcc, spec, keep, out, jobs):
    work = out / ".work" / spec.name
    work.mkdir(parents=True, exist_ok=True)
    sources = [pathlib.Path(source) for source in spec.sources if keep(pathlib.Path(source))]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(lambda source: compile_one(nvcc, source, spec, work), sources))
    return link(spec.name, objects, out, work)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    failed = 0
    for short, spec, keep in specs(options.nvcc):
        if wanted and short not in wanted:
            continue
        if (options.out / spec.name / f"{spec.name}.so").exists():
            continue
        try:
            library = build(options.nvcc, spec, keep, options.out, options.jobs)
            print(f"{short}: {library.stat().st_size / 1e6:.1f} MB", flush=True)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            failed = 1
            print(f"{short}: {error}", file=sys.stderr, flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
