// Seeded bugs. A build may choose one, and the tests prove that they fail on it; every real build has none.
#pragma once

#include "host_device.h"

namespace flyball {

enum class Mutant {
    none,
    page_off_by_one,    // attention reads the page of 16 tokens further on
    mask_edge,          // attention sees one key past the end
    copy_not_awaited,   // decode, prefill and append read a stage while its copy may still be in flight
    tail_unzeroed,      // prefill copies what lies behind the last token
    stage_unsynced,     // prefill reads what other warps copied without a barrier
    warp_unsynced,      // decode reads what other lanes copied without a barrier
    merge_unsynced,     // decode merges its warps without a barrier
    stale_max,          // a chunk's partial is merged without rescaling it
    sum_unsynced,       // norm adds the warps' sums without a barrier
    wrong_pair,         // append rotates with the sign of the other half
    unsaturated,        // append lets fp8 overflow wrap into the NaN code
    padding_written,    // append writes K and V of a token without a slot
    tail_uncopied,      // copy drops the last pieces of a page
    histogram_unsynced, // sample reads a histogram that is still being filled
    keyed_by_row,       // sample draws by the row's place in the batch
    query_unfenced,     // prefill multiplies queries that the proxy of the products may not see
    key_freed_early,    // prefill frees keys whose products are still under way
    tail_uncleared,     // prefill weighs with 0 what lies behind the end, NaN included
    causal_edge,        // prefill sees one key past the query
    turn_forgotten,     // prefill does not hand the tensor cores on
    list_unsynced,      // sample reads the list of candidates while it is being filled
    short_list,         // sample draws from a list that misses some of the mass
    queue_unsynced,     // sample reads the queue of a warp while it is being filled
    edge_unchecked,     // sample takes all of the bin in which the nucleus ends for a part of it
    head_skipped,       // append leaves out the last heads of a token
    gate_from_next,     // activation takes up from where the next row begins
    id_unchecked,       // gather reads past the last row
    prompt_counted,     // penalize takes presence off for tokens of the prompt alone
};

#ifndef FB_MUTANT
#define FB_MUTANT none
#endif

FB_HD constexpr bool mutated(Mutant mutant) {
    return mutant != Mutant::none && mutant == Mutant::FB_MUTANT;
}

}  // namespace flyball
