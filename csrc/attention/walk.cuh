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

    static FB_DEVICE Chunk load(const fb_decode& p, uint32_t index) {
        const auto entry = Global<uint32_t>(p.chunks).load<4>(int64_t(index) * 4);
        return {entry.at[0], entry.at[1], entry.at[2], entry.at[3]};
    }
};

// The work items of a cta, grid-stride: item `i` is chunk i / heads_kv for KV head i % heads_kv, so that neighbouring
// ctas share a chunk's table entries. Divides once.
class Item {
public:
    FB_DEVICE Item(const fb_decode& p, uint32_t items)
        : items_(items), heads_(p.pool.heads_kv), index_(cta_index()), chunk_(index_ / heads_),
          head_(index_ % heads_), chunk_step_(cta_count() / heads_), head_step_(cta_count() % heads_) {}

    FB_DEVICE bool exists() const { return index_ < items_; }
    FB_DEVICE uint32_t chunk() const { return chunk_; }
    FB_DEVICE uint32_t head() const { return head_; }

    FB_DEVICE void next() {
        index_ += cta_count();
        chunk_ += chunk_step_;
        head_ += head_step_;
        if (head_ >= heads_) {
            head_ -= heads_;
            chunk_ += 1;
        }
    }

private:
    uint32_t items_, heads_, index_, chunk_, head_, chunk_step_, head_step_;
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

    FB_DEVICE Walk(const fb_decode& p, uint32_t items) : p(p), ahead(p, items) {
        head = ahead.head();
        chunk = take();
        next_head = ahead.head();
        next = take();
        after_head = ahead.head();
        after = take();
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
        const Paging paging = {p.pool.page_stride, p.pool.page_shift, p.pool.heads_kv, head_dim};
        const uint32_t page = shuffle(pages, tile % kLanes);
        const uint32_t first = token(chunk, tile);
        const Global<Stored> cached(p.pool.pages);
        step.key = cached.address_of(paging.key(page, head, paging.offset(first)));
        step.value = step.key + (uint64_t(p.pool.heads_kv) << p.pool.page_shift) * head_dim * sizeof(Stored);
        step.tokens = first >= chunk.end ? 0 : chunk.end - first < kTokens ? chunk.end - first : kTokens;
        tile += 1;
        return true;
    }

private:
    const fb_decode& p;
    Item ahead;                // the item after `after`
    Chunk chunk, next, after;  // of this item and the next two: an item's entries are read one item early
    uint32_t head, next_head, after_head;
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
        next = after;
        next_head = after_head;
        next_pages = pages_of(next, 0);
        after_head = ahead.head();
        after = take();
    }

    // The chunk of the item that is ahead, which then moves on.
    FB_DEVICE Chunk take() {
        const Chunk taken = ahead.exists() ? Chunk::load(p, ahead.chunk()) : Chunk{0, 0, 0, 0};
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
