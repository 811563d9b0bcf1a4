#include "queue.h"

#include <algorithm>
#include <chrono>

namespace simt::driver {
namespace {

double micros() {
    using namespace std::chrono;
    return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void Queue::add(Stream& stream, Work work) {
    if (stream.capture) {
        auto& nodes = stream.capture->nodes;
        nodes.push_back({std::move(work), {}});
        if (stream.node) nodes.back().after.push_back(*stream.node);
        stream.node = nodes.size() - 1;
        return;
    }
    auto operation = std::make_shared<Operation>();
    operation->work = std::move(work);
    if (stream.last) operation->after.push_back(stream.last);
    pending_.push_back(operation);
    stream.last = operation;
}

void Queue::record(Stream& stream, Event& event) {
    auto reached = std::make_shared<double>(0);
    add(stream, [reached] { *reached = micros(); });
    event = {stream.capture ? nullptr : stream.last, stream.capture, stream.node.value_or(0), reached};
}

void Queue::wait(Stream& stream, const Event& event) {
    // Whoever waits for a captured event is drawn into the capture.
    if (event.graph && !stream.capture) stream.capture = event.graph;
    add(stream, [] {});
    if (event.graph && event.graph == stream.capture) {
        stream.capture->nodes.back().after.push_back(event.node);
    } else if (event.operation && !stream.capture) {
        pending_.back()->after.push_back(event.operation);
    }
}

Status Queue::settle(const OperationRef& operation) {
    if (captures_ > 0) return Status::capture_unsupported;
    if (operation && pace_ == Pace::late) run_before(operation);
    while (operation && !operation->done) run_any();
    return Status::success;
}

Status Queue::settle_all() {
    if (captures_ > 0) return Status::capture_unsupported;
    while (!pending_.empty()) run_any();
    return Status::success;
}

void Queue::run(Operation& operation) {
    operation.work();
    operation.work = nullptr;
    operation.after.clear();
    operation.done = true;
    pending_.erase(std::find_if(pending_.begin(), pending_.end(), [&](auto& other) { return other.get() == &operation; }));
}

void Queue::run_before(const OperationRef& last) {
    // Not by recursion: a stream may be long.
    std::vector<OperationRef> path = {last};
    while (!path.empty()) {
        const OperationRef operation = path.back();
        const auto open = std::find_if(operation->after.begin(), operation->after.end(), [](auto& o) { return !o->done; });
        if (operation->done) {
            path.pop_back();
        } else if (open != operation->after.end()) {
            path.push_back(*open);
        } else {
            run(*operation);
        }
    }
}

void Queue::run_any() {
    std::vector<OperationRef> ready;
    for (const OperationRef& operation : pending_) {
        if (std::all_of(operation->after.begin(), operation->after.end(), [](auto& o) { return o->done; })) {
            ready.push_back(operation);
        }
    }
    run(*ready[random() % ready.size()]);
}

void Queue::begin_capture(Stream& stream) {
    stream.capture = std::make_shared<Graph>();
    stream.origin = true;
    stream.writes = nullptr;
    captures_ += 1;
}

std::shared_ptr<Graph> Queue::end_capture(Stream& stream, const std::vector<Stream*>& streams, Status& status) {
    const std::shared_ptr<Graph> graph = stream.capture;
    if (!graph || !stream.origin) {
        status = Status::invalid_value;
        return nullptr;
    }
    // Whatever another stream did must come before the end of this one.
    std::vector<bool> followed(graph->nodes.size(), false);
    for (const Graph::Node& node : graph->nodes) {
        for (size_t before : node.after) followed[before] = true;
    }
    if (stream.node) followed[*stream.node] = true;
    const bool joined = std::find(followed.begin(), followed.end(), false) == followed.end();
    for (Stream* other : streams) {
        if (other->capture == graph) *other = {other->last, nullptr, {}, false, nullptr};
    }
    captures_ -= 1;
    status = joined ? Status::success : Status::capture_unjoined;
    return joined ? graph : nullptr;
}

void Queue::launch(Stream& stream, const Graph& graph) {
    const OperationRef before = stream.last;
    std::vector<OperationRef> operations;
    for (const Graph::Node& node : graph.nodes) {
        auto operation = std::make_shared<Operation>();
        operation->work = node.work;
        if (before) operation->after.push_back(before);
        for (size_t place : node.after) operation->after.push_back(operations[place]);
        operations.push_back(operation);
        pending_.push_back(operation);
    }
    add(stream, [] {});
    stream.writes = nullptr;
    auto& after = stream.last->after;
    after.insert(after.end(), operations.begin(), operations.end());
}

// SplitMix64 (Steele, Lea and Flood, 2014).
uint64_t Queue::random() {
    uint64_t z = random_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

}  // namespace simt::driver
