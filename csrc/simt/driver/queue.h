// The order of a device's work: operations, streams, events, captured graphs.
//
// Nothing runs when it is started. It runs when somebody waits for it, or for what comes after it: `late` runs nothing
// else, so that other streams stay behind as far as they may; `any` runs whatever could run, in a random order. Work
// that relies on an order which no stream and no event gives it therefore finds what it needs missing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "../writes.h"
#include "status.h"

namespace simt::driver {

using Work = std::function<void()>;

// A piece of work, and what it comes after.
struct Operation {
    Work work;
    std::vector<std::shared_ptr<Operation>> after;
    bool done = false;
};
using OperationRef = std::shared_ptr<Operation>;

// Operations that were captured, by their places.
struct Graph {
    struct Node {
        Work work;
        std::vector<size_t> after;
    };
    std::vector<Node> nodes;
};

struct Stream {
    OperationRef last;
    // While it is in capture, and then its last node there.
    std::shared_ptr<Graph> capture;
    std::optional<size_t> node;
    // Whether the capture began here.
    bool origin = false;
    // Of its last kernel or product, which the next kernel may overlap, whatever events lie between; null after copies.
    std::shared_ptr<Writes> writes;
};

// What it marks: an operation, or a node of a graph in capture.
struct Event {
    OperationRef operation;
    std::shared_ptr<Graph> graph;
    size_t node = 0;
    // When the device came to it, in microseconds.
    std::shared_ptr<double> reached;
};

enum class Pace { late, any };

class Queue {
public:
    explicit Queue(Pace pace) : pace_(pace) {}

    void add(Stream& stream, Work work);
    void record(Stream& stream, Event& event);
    void wait(Stream& stream, const Event& event);
    // Runs until this is done; nothing is.
    Status settle(const OperationRef& operation);
    Status settle_all();

    void begin_capture(Stream& stream);
    // The graph, or null and why there is none.
    std::shared_ptr<Graph> end_capture(Stream& stream, const std::vector<Stream*>& streams, Status& status);
    void launch(Stream& stream, const Graph& graph);

    // What is still to be done, and captures, are dropped.
    void abandon() {
        pending_.clear();
        captures_ = 0;
    }

private:
    void run(Operation& operation);
    void run_before(const OperationRef& operation);
    void run_any();
    uint64_t random();

    const Pace pace_;
    uint32_t captures_ = 0;
    std::vector<OperationRef> pending_;  // in the order in which they were started
    uint64_t random_ = 1;
};

}  // namespace simt::driver
