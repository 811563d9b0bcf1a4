// Every kernel that is compiled, by the name under which it is launched: FB_KERNEL(name, type...), by families, of
// which a unit may want one (families.h). The GPU build and the CPU tests read this one list. FB_MORE is FB_KERNEL
// for what only whole builds need: without it each family still has every path.
// FB_KERNEL_SM90A marks what needs instructions of sm_90a alone. One kernel a line: build.rs reads this file too.
//
// A name is family_compute[_stored]_d<head_dim>: the type of what goes in and out, that of the cache where it is
// another, and the dimension of a head.
#ifndef FB_MORE
#define FB_MORE FB_KERNEL
#endif
#ifndef FB_KERNEL_SM90A
#define FB_KERNEL_SM90A(...)
#endif
#if FB_WANTS(FB_NORM)
FB_KERNEL(rms_norm_bf16_8k, RmsNorm<4>)
FB_KERNEL(rms_norm_bf16_16k, RmsNorm<8>)
#endif
#if FB_WANTS(FB_APPEND)
FB_KERNEL(append_bf16_d64, Append<Bf16, 64>)
FB_KERNEL(append_bf16_d128, Append<Bf16, 128>)
FB_KERNEL(append_e4m3_d64, Append<E4m3, 64>)
FB_KERNEL(append_e4m3_d128, Append<E4m3, 128>)
#endif
#if FB_WANTS(FB_COPY)
FB_KERNEL(copy_pages, CopyPages)
#endif
#if FB_WANTS(FB_DECODE)
FB_KERNEL(decode_plan, DecodePlan)
FB_KERNEL(decode_bf16_d64, Decode<Bf16, Bf16, 64>)
FB_MORE(decode_bf16_d80, Decode<Bf16, Bf16, 80>)
FB_MORE(decode_bf16_d96, Decode<Bf16, Bf16, 96>)
FB_KERNEL(decode_bf16_d128, Decode<Bf16, Bf16, 128>)
FB_MORE(decode_bf16_d256, Decode<Bf16, Bf16, 256>)
FB_KERNEL(decode_bf16_e4m3_d64, Decode<Bf16, E4m3, 64>)
FB_MORE(decode_bf16_e4m3_d80, Decode<Bf16, E4m3, 80>)
FB_MORE(decode_bf16_e4m3_d96, Decode<Bf16, E4m3, 96>)
FB_KERNEL(decode_bf16_e4m3_d128, Decode<Bf16, E4m3, 128>)
FB_MORE(decode_bf16_e4m3_d256, Decode<Bf16, E4m3, 256>)
FB_MORE(decode_f16_d64, Decode<F16, F16, 64>)
FB_MORE(decode_f16_d80, Decode<F16, F16, 80>)
FB_MORE(decode_f16_d96, Decode<F16, F16, 96>)
FB_MORE(decode_f16_d128, Decode<F16, F16, 128>)
FB_MORE(decode_f16_d256, Decode<F16, F16, 256>)
FB_MORE(decode_f16_e4m3_d64, Decode<F16, E4m3, 64>)
FB_MORE(decode_f16_e4m3_d80, Decode<F16, E4m3, 80>)
FB_MORE(decode_f16_e4m3_d96, Decode<F16, E4m3, 96>)
FB_MORE(decode_f16_e4m3_d128, Decode<F16, E4m3, 128>)
FB_MORE(decode_f16_e4m3_d256, Decode<F16, E4m3, 256>)
FB_KERNEL(decode_merge_bf16_d64, DecodeMerge<Bf16, 64>)
FB_MORE(decode_merge_bf16_d80, DecodeMerge<Bf16, 80>)
FB_MORE(decode_merge_bf16_d96, DecodeMerge<Bf16, 96>)
FB_KERNEL(decode_merge_bf16_d128, DecodeMerge<Bf16, 128>)
FB_MORE(decode_merge_bf16_d256, DecodeMerge<Bf16, 256>)
FB_MORE(decode_merge_f16_d64, DecodeMerge<F16, 64>)
FB_MORE(decode_merge_f16_d80, DecodeMerge<F16, 80>)
FB_MORE(decode_merge_f16_d96, DecodeMerge<F16, 96>)
FB_MORE(decode_merge_f16_d128, DecodeMerge<F16, 128>)
FB_MORE(decode_merge_f16_d256, DecodeMerge<F16, 256>)
#endif
#if FB_WANTS(FB_PREFILL)
FB_KERNEL(prefill_plan, PrefillPlan)
FB_KERNEL(prefill_bf16_d64, Prefill<Bf16, Bf16, 64>)
FB_MORE(prefill_bf16_d80, Prefill<Bf16, Bf16, 80>)
FB_MORE(prefill_bf16_d96, Prefill<Bf16, Bf16, 96>)
FB_KERNEL(prefill_bf16_d128, Prefill<Bf16, Bf16, 128>)
FB_MORE(prefill_bf16_d256, Prefill<Bf16, Bf16, 256>)
FB_KERNEL(prefill_bf16_e4m3_d64, Prefill<Bf16, E4m3, 64>)
FB_MORE(prefill_bf16_e4m3_d80, Prefill<Bf16, E4m3, 80>)
FB_MORE(prefill_bf16_e4m3_d96, Prefill<Bf16, E4m3, 96>)
FB_KERNEL(prefill_bf16_e4m3_d128, Prefill<Bf16, E4m3, 128>)
FB_MORE(prefill_bf16_e4m3_d256, Prefill<Bf16, E4m3, 256>)
FB_MORE(prefill_f16_d64, Prefill<F16, F16, 64>)
FB_MORE(prefill_f16_d80, Prefill<F16, F16, 80>)
FB_MORE(prefill_f16_d96, Prefill<F16, F16, 96>)
FB_MORE(prefill_f16_d128, Prefill<F16, F16, 128>)
FB_MORE(prefill_f16_d256, Prefill<F16, F16, 256>)
FB_MORE(prefill_f16_e4m3_d64, Prefill<F16, E4m3, 64>)
FB_MORE(prefill_f16_e4m3_d80, Prefill<F16, E4m3, 80>)
FB_MORE(prefill_f16_e4m3_d96, Prefill<F16, E4m3, 96>)
FB_MORE(prefill_f16_e4m3_d128, Prefill<F16, E4m3, 128>)
FB_MORE(prefill_f16_e4m3_d256, Prefill<F16, E4m3, 256>)
#endif
#if FB_WANTS(FB_HOPPER)
FB_KERNEL_SM90A(prefill_hopper_bf16_d64, HopperPrefill<Bf16, 64, Turns::alternate>)
FB_KERNEL_SM90A(prefill_hopper_bf16_d128, HopperPrefill<Bf16, 128, Turns::alternate>)
FB_KERNEL_SM90A(prefill_hopper_bf16_d128_free, HopperPrefill<Bf16, 128, Turns::free>)
FB_KERNEL_SM90A(prefill_hopper_f16_d64, HopperPrefill<F16, 64, Turns::alternate>)
FB_KERNEL_SM90A(prefill_hopper_f16_d128, HopperPrefill<F16, 128, Turns::alternate>)
#endif
#if FB_WANTS(FB_SAMPLE)
FB_KERNEL(sample_tokens, SampleTokens)
#endif
