// What a grid wrote to global memory: the grid behind it may begin early, and must not read that before its wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_set>

namespace simt {

class Writes {
public:
    void clear() { lines_.clear(); }

    void note(uint64_t address, size_t bytes) {
        for (uint64_t line = address / kLine; line <= (address + bytes - 1) / kLine; ++line) lines_.insert(line);
    }

    bool touch(uint64_t address, size_t bytes) const {
        for (uint64_t line = address / kLine; line <= (address + bytes - 1) / kLine; ++line) {
            if (lines_.count(line)) return true;
        }
        return false;
    }

private:
    // A device moves no less at once, and buffers lie further apart.
    static constexpr uint64_t kLine = 32;

    std::unordered_set<uint64_t> lines_;
};

}  // namespace simt
