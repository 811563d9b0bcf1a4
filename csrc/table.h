// Every kernel that is compiled, by the name under which it is launched: FB_KERNEL(name, type...), by families, of
// which a unit may want one (families.h). The GPU build and the CPU tests read this one list. FB_MORE is FB_KERNEL
// for what only whole builds need: without it each family still has every path.
// FB_KERNEL_SM90A marks what needs instructions of sm_90a alone. One kernel a line: build.rs reads this file too.
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
FB_KERNEL(decode_bf16_d64, Decode<Bf16, 64>)
FB_KERNEL(decode_bf16_d128, Decode<Bf16, 128>)
FB_KERNEL(decode_e4m3_d64, Decode<E4m3, 64>)
FB_KERNEL(decode_e4m3_d128, Decode<E4m3, 128>)
FB_KERNEL(decode_merge_d64, DecodeMerge<64>)
FB_KERNEL(decode_merge_d128, DecodeMerge<128>)
#endif
#if FB_WANTS(FB_PREFILL)
FB_KERNEL(prefill_plan, PrefillPlan)
#endif
#if FB_WANTS(FB_HOPPER)
FB_KERNEL_SM90A(prefill_hopper_bf16_d64, HopperPrefill<64, Turns::alternate, Rescale::always>)
FB_KERNEL_SM90A(prefill_hopper_bf16_d128, HopperPrefill<128, Turns::alternate, Rescale::always>)
FB_KERNEL_SM90A(prefill_hopper_bf16_d128_lazy, HopperPrefill<128, Turns::alternate, Rescale::lazy>)
FB_KERNEL_SM90A(prefill_hopper_bf16_d128_free, HopperPrefill<128, Turns::free, Rescale::always>)
#endif
#if FB_WANTS(FB_SAMPLE)
FB_KERNEL(sample_tokens, SampleTokens)
#endif
