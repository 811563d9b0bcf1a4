// Which tile of which row a cta works on, from the plan's list.
#pragma once

#include "../core/mask.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

// Where a packed row's query is.
struct PackedRow {
    int64_t token;  // in the batch
    uint32_t head;  // query head
    bool valid;     // the row exists
};

// A tile of packed rows for one KV head.
struct PrefillItem {
    uint32_t row;
    uint32_t head;    // KV head
    uint32_t first;   // packed row of the sequence
    uint32_t token;   // the sequence's first token in the batch
    uint32_t tokens;  // of the sequence, new
    uint32_t length;  // of the cache, the new ones included; 0 for padding
    uint32_t group;   // query heads per KV head
    uint32_t seen;    // keys that the tile's last row sees

    FB_DEVICE PackedRow row_of(uint32_t row) const {
        const uint32_t packed = first + row;
        return {int64_t(token) + packed / group, head * group + packed % group, packed < tokens * group};
    }
    // How many keys a row of the tile sees; rows behind the last see what it does.
    FB_DEVICE uint32_t visible(uint32_t row) const {
        const uint32_t query = (first + row) / group;
        return visible_keys(query < tokens ? query : tokens - 1, tokens, length);
    }
    FB_DEVICE uint32_t tiles(uint32_t keys) const { return (seen + keys - 1) / keys; }
};

// The ctas' turns through all items: forth and back, for the plan's list begins with the longest.
struct PrefillWork {
    const fb_prefill& p;
    const uint32_t items;

    FB_DEVICE explicit PrefillWork(const fb_prefill& p)
        : p(p), items(Global<uint32_t>(p.tile_count)[0] * p.pool.heads_kv) {}

    FB_DEVICE uint32_t place(uint32_t turn) const {
        return turn * cta_count() + (turn % 2 ? cta_count() - 1 - cta_index() : cta_index());
    }
    // A turn that has none is the last, for this cta: those before were whole.
    FB_DEVICE bool has(uint32_t turn) const { return place(turn) < items; }

    FB_DEVICE PrefillItem item(uint32_t turn, uint32_t rows) const {
        const auto tile = Global<uint32_t>(p.tiles).load<4>(int64_t(place(turn) / p.pool.heads_kv) * 4);
        PrefillItem item;
        item.row = tile.at[0];
        item.head = place(turn) % p.pool.heads_kv;
        item.first = tile.at[1] * rows;
        item.token = tile.at[2];
        item.tokens = tile.at[3];
        item.length = item.row < p.rows ? Global<uint32_t>(p.lengths)[item.row] : 0;
        item.group = p.heads_q / p.pool.heads_kv;
        item.seen = item.length == 0 ? 0 : item.visible(rows - 1);
        return item;
    }
};

}  // namespace flyball
