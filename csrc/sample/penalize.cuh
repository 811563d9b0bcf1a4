// penalize: lowers the logits of the tokens that a row has seen, in place, before `sample`.
//   logits [rows, stride] float; tokens, counts [listed]; from [rows + 1]
// Repetition first (Keskar et al., "CTRL", 2019: a positive logit is divided, another multiplied, wherever the token
// was seen), then frequency and presence (as of OpenAI's API: of the output alone), as vLLM orders them
// (vllm/model_executor/layers/utils.py, apply_penalties).
//
// One cta of 256 threads per row, grid-stride. Touches the listed logits alone; rows without any cost nothing.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

struct Penalize {
    using Params = fb_penalize;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const Global<uint32_t> from(p.from), tokens(p.tokens), counts(p.counts);
        const Global<float> logits(p.logits);
        for (uint32_t row = cta_index(); row < p.rows; row += cta_count()) {
            const uint32_t begin = from[row], end = from[row + 1];
            if (begin == end) continue;
            const float repetition = Global<float>(p.repetition)[row];
            const float presence = Global<float>(p.presence)[row], frequency = Global<float>(p.frequency)[row];
            for (uint32_t at = begin + thread_index(); at < end; at += kThreads) {
                const uint32_t token = tokens[at], count = counts[at];
                if (token >= p.vocab) continue;
                const int64_t where = row * p.stride + token;
                float logit = logits[where];
                logit = logit > 0.0f ? logit / repetition : logit * repetition;
                logit -= frequency * float(count);
                if (count > 0 || mutated(Mutant::prompt_counted)) logit -= presence;
                logits.set(where, logit);
            }
        }
    }
};

}  // namespace flyball
