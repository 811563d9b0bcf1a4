// The walk of a warp through the cached tokens of its cta's work items, one tile of 16 after the other, across the
// items' ends: what copies them runs ahead of what reads them, and never has to stop for an item.
#pragma once

#include "../core/mutant.h"
#include "../core/paging.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

// A chunk of a row, as the plan lists it.
struct Chunk {
    uint32_t row;
    uint32_t begin;
    uint32_t end;
    uint32_t siblings;  // chunks of the row

    static FB_DEVICE Chunk at(Global<uint32_t> entries, int64_t index) {
        const auto entry = entries.load<4>(index);
        return {entry.at[0], entry.at[1], entry.at[2], entry.at[3]};
    }
};

// The work items of a cta: chunks for one KV head each. Lists are grid-stride over (list, head), the heads of a list
// on neighbouring ctas; without lists every chunk is one. Divides once.
class Item {
public:
    FB_DEVICE explicit Item(const fb_decode& p)
        : p(p), lists_(p.lists_max ? p.lists_max : Global<uint32_t>(p.chunk_from)[p.rows]),
          list_(cta_index() / p.pool.heads_kv), head_(cta_index() % p.pool.heads_kv),
          list_step_(cta_count() / p.pool.heads_kv), head_step_(cta_count() % p.pool.heads_kv) {
        enter();
    }

    FB_DEVICE bool exists() const { return chunk_ < end_; }
    FB_DEVICE uint32_t index() const { return chunk_; }
    FB_DEVICE uint32_t head() const { return head_; }

    // What it is; of the first in a list the list itself says it, so that nothing need be read before.
    FB_DEVICE Chunk chunk() const {
        return first_ ? Chunk::at(Global<uint32_t>(p.lists), int64_t(list_) * 8 + 4)
                      : Chunk::at(Global<uint32_t>(p.chunks), int64_t(chunk_) * 4);
    }

    FB_DEVICE void next() {
        first_ = false;
        if (++chunk_ < end_) return;
        list_ += list_step_;
        head_ += head_step_;
        if (head_ >= p.pool.heads_kv) {
            head_ -= p.pool.heads_kv;
            list_ += 1;
        }
        enter();
    }

private:
    const fb_decode& p;
    uint32_t lists_, list_, head_, list_step_, head_step_;
    uint32_t chunk_ = 0, end_ = 0;  // of the list
    bool first_ = false;

    // Lists without chunks are the last ones.
    FB_DEVICE void enter() {
        chunk_ = end_ = 0;
        if (list_ >= lists_) return;
        first_ = p.lists_max > 0;
        chunk_ = list_;
        end_ = list_ + 1;
        if (!first_) return;
        const auto list = Global<uint32_t>(p.lists).load<2>(int64_t(list_) * 8);
        chunk_ = list.at[0];
        end_ = list.at[1];
    }
};

// A cta takes 16 tokens per warp at once.
template <class Stored, uint32_t head_dim, uint32_t warps>
struct Walk {
    static constexpr uint32_t kTokens = 16;
    static constexpr uint32_t kStride = warps * kTokens;

    // A tile that lies in one page, for it begins at a multiple of 16 and a page holds a multiple of 16.
    struct Step {
        uint64_t key;     // address of the first token's K
        uint64_t value;   // and of its V
        uint32_t tokens;  // how many there are, from 0 to 16
    };

    FB_DEVICE explicit Walk(const fb_decode& p) : p(p), ahead(p) {
        head = ahead.head();
        chunk = take();
        next_head = ahead.head();
        next = take();
        pages = pages_of(chunk, 0);
        next_pages = pages_of(next, 0);
    }

    // How many tiles a chunk has for each warp.
    static FB_DEVICE uint32_t tiles(Chunk chunk) { return (chunk.end - chunk.begin + kStride - 1) / kStride; }
    // The first token of this warp's tile.
    static FB_DEVICE uint32_t token(Chunk chunk, uint32_t tile) {
        return chunk.begin + tile * kStride + warp_index() * kTokens;
    }

    // The next tile, or false at the end of all.
    FB_DEVICE bool advance(Step& step) {
        while (tile == tiles(chunk)) {
            if (ended()) return false;
            enter_next();
        }
        if (tile % kLanes == 0 && tile > 0) pages = pages_of(chunk, tile);
        const Paging paging(p.pool, head_dim);
        const uint32_t page = shuffle(pages, tile % kLanes);
        const uint32_t first = token(chunk, tile);
        const Global<Stored> cached(p.pool.pages);
        step.key = cached.address_of(paging.element(page, head, first));
        step.value = step.key + (uint64_t(p.pool.heads_kv) << p.pool.page_shift) * head_dim * sizeof(Stored);
        step.tokens = first >= chunk.end ? 0 : chunk.end - first < kTokens ? chunk.end - first : kTokens;
        tile += 1;
        return true;
    }

private:
    const fb_decode& p;
    Item ahead;         // the item after `next`
    Chunk chunk, next;  // an item's entry and pages are read one item early
    uint32_t head, next_head;
    uint32_t tile = 0;
    uint32_t pages;  // lane i has the page of this warp's tile i, or of i beyond the last multiple of 32
    uint32_t next_pages;

    // A chunk counts itself among its siblings, even if it has no tokens.
    FB_DEVICE bool ended() const { return chunk.siblings == 0; }

    FB_DEVICE void enter_next() {
        tile = 0;
        chunk = next;
        head = next_head;
        pages = next_pages;
        next_head = ahead.head();
        next = take();
        next_pages = pages_of(next, 0);
    }

    // The chunk of the item that is ahead, which then moves on.
    FB_DEVICE Chunk take() {
        if (!ahead.exists()) return {0, 0, 0, 0};
        const Chunk taken = ahead.chunk();
        ahead.next();
        return taken;
    }

    FB_DEVICE uint32_t pages_of(Chunk chunk, uint32_t tile) const {
        const uint32_t first = token(chunk, tile + lane_index());
        if (first >= chunk.end) return 0;
        const uint32_t at = first + (mutated(Mutant::page_off_by_one) ? kTokens : 0);
        return Global<uint32_t>(p.tables)[chunk.row * p.table_stride + (at >> p.pool.page_shift)];
    }
};

}  // namespace flyball
