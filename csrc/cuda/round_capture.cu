// round: its capture, piece by piece, and what becomes of the graph.
#include <algorithm>
#include <new>
#include <utility>

#include "error.h"
#include "round_object.h"

using namespace kangaroo;
using Stage = kangaroo::RoundStage;

namespace {

const char* name_of(Stage stage) {
  switch (stage) {
    case Stage::kIdle:
      return "outside a capture";
    case Stage::kBeforeFront:
      return "before the front";
    case Stage::kInFront:
      return "inside the front";
    case Stage::kBetweenSteps:
      return "between the steps of a capture";
    case Stage::kInStep:
      return "inside a step";
    case Stage::kInFound:
      return "inside what was found";
    case Stage::kBeforeTail:
      return "before the tail";
    case Stage::kInTail:
      return "inside the tail";
    case Stage::kBehindTail:
      return "behind the tail";
  }
  return "nowhere";
}

// A part of a capture: where it fails, the whole capture is given up.
template <class Body>
kangaroo_status record(kangaroo_round& round, const Body& body) {
  kangaroo_status status = KANGAROO_OK;
  try {
    status = body();
  } catch (const std::bad_alloc&) {
    status = out_of_memory("round");
  }
  if (status != KANGAROO_OK) round.abort();
  return status;
}

// A piece begins or ends; `body` is what belongs to it outside of the caller's work.
template <class Body>
kangaroo_status begin(kangaroo_round& round, Stage inside, const Body& body) {
  return record(round, [&] {
    if (auto bad = body()) return bad;
    round.stage = inside;
    return round.builder.begin_capture(round.capture_stream);
  });
}

template <class Body>
kangaroo_status end(kangaroo_round* round, const char* call, Stage inside, Stage behind,
                    const Body& body) {
  if (auto bad = given(round, call)) return bad;
  if (auto bad = round->at_stage(call, inside)) return bad;
  return record(*round, [&] {
    if (auto bad = round->builder.end_capture()) return bad;
    round->stage = behind;
    return body();
  });
}

kangaroo_status nothing() { return KANGAROO_OK; }

}  // namespace

kangaroo_status kangaroo_round::at_stage(const char* call, Stage expected) const {
  if (stage == expected) return KANGAROO_OK;
  return invalid("round: %s: expected a call %s, got one %s", call, name_of(expected),
                 name_of(stage));
}

kangaroo_status kangaroo_round::on_own_device(const char* call) const {
  int current = 0;
  if (auto bad = tried("cudaGetDevice", cudaGetDevice(&current))) return bad;
  if (device == current) return KANGAROO_OK;
  return invalid("round: %s: expected device %d to be current, got %d", call, device, current);
}

kangaroo_status kangaroo_round::open() {
  if (auto bad = builder.start()) return bad;
  const auto num_steps = static_cast<uint64_t>(config.num_steps);
  const uint64_t first = fronted() ? 0 : std::min<uint64_t>(num_steps, 1);
  const uint64_t ungated = conditional() ? first : num_steps;
  RoundOpenParams p = {memory.state(), config.stopped, config.num_nodes, config.batch, ungated, 0,
                       conditional()};
  if (conditional()) {
    if (auto bad = builder.condition(&p.handle)) return bad;
  }
  const void* const function = reinterpret_cast<const void*>(&_round_open_kernel);
  if (auto bad = builder.kernel(function, &p)) return bad;
  return conditional() ? builder.enter(p.handle) : KANGAROO_OK;
}

kangaroo_status kangaroo_round::gate(const int32_t* flags, bool of_step) {
  RoundGateParams p = {memory.state(), flags, of_step, config.batch, 0};
  if (auto bad = builder.condition(&p.handle)) return bad;
  const void* const function = reinterpret_cast<const void*>(&_round_gate_kernel);
  if (auto bad = builder.kernel(function, &p)) return bad;
  return builder.enter(p.handle);
}

kangaroo_status kangaroo_round::behind_steps(const char* call) const {
  if (next_step == config.num_steps) return KANGAROO_OK;
  return invalid("round: %s: expected %lld steps before it, got %lld", call,
                 static_cast<long long>(config.num_steps), static_cast<long long>(next_step));
}

kangaroo_status kangaroo_round::leave_steps() {
  const std::size_t own_depth = conditional() ? 1 : 0;
  while (builder.depth() > own_depth) {
    if (auto bad = builder.leave()) return bad;
  }
  return KANGAROO_OK;
}

kangaroo_status kangaroo_round::close() {
  if (conditional()) {
    if (auto bad = builder.leave()) return bad;
  }
  RoundPublishParams p = {};
  p.state = memory.state();
  p.ring = memory.ring_on_device();
  p.tokens = config.tokens;
  p.path = config.path;
  p.path_len = config.path_len;
  p.bonus = config.bonus;
  p.num_nodes = config.num_nodes;
  p.nodes = config.nodes;
  p.token_stride = config.token_stride;
  p.path_stride = config.path_stride;
  p.num_eos = config.num_eos;
  std::copy_n(eos_ids, KANGAROO_ROUND_MAX_EOS, p.eos_ids);
  return builder.kernel(reinterpret_cast<const void*>(&_round_publish_kernel), &p);
}

kangaroo_status kangaroo_round::wait_for_device() {
  return used ? tried("cudaStreamSynchronize", cudaStreamSynchronize(stream)) : KANGAROO_OK;
}

kangaroo_status kangaroo_round::adopt(Graph graph) {
  if (exec) {
    cudaGraphExecUpdateResultInfo info = {};
    if (cudaGraphExecUpdate(exec.get(), graph.get(), &info) == cudaSuccess) {
      latest = std::move(graph);
      return KANGAROO_OK;
    }
    cudaGetLastError();  // whatever it was, a new executable settles it, or says it better
  }
  cudaGraphExec_t fresh = nullptr;
  if (auto bad = tried("cudaGraphInstantiate", cudaGraphInstantiate(&fresh, graph.get(), 0))) {
    return bad;
  }
  GraphExec owned(fresh);
  if (auto bad = wait_for_device()) return bad;  // the last round may not have quite ended
  exec = std::move(owned);
  latest.reset();
  instantiated = std::move(graph);
  ++instantiations;
  return KANGAROO_OK;
}

kangaroo_status kangaroo_round_capture(kangaroo_round* round, void* stream) {
  if (auto bad = given(round, "capture")) return bad;
  if (auto bad = round->at_stage("capture", Stage::kIdle)) return bad;
  if (round->unread() > 0) {
    return invalid("round: capture: expected all rounds to be read, got %lld unread",
                   static_cast<long long>(round->unread()));
  }
  const auto on = static_cast<cudaStream_t>(stream);
  if (on == nullptr || on == cudaStreamLegacy) {
    return invalid("round: capture: expected a stream of its own, got the default stream");
  }
  if (auto bad = round->on_own_device("capture")) return bad;
  return record(*round, [=] {
    round->capture_stream = on;
    round->next_step = 0;
    round->stage = round->fronted() ? Stage::kBeforeFront : Stage::kBetweenSteps;
    return round->open();
  });
}

kangaroo_status kangaroo_round_begin_front(kangaroo_round* round) {
  if (auto bad = given(round, "begin_front")) return bad;
  if (auto bad = round->at_stage("begin_front", Stage::kBeforeFront)) return bad;
  return begin(*round, Stage::kInFront, nothing);
}

kangaroo_status kangaroo_round_end_front(kangaroo_round* round) {
  return end(round, "end_front", Stage::kInFront, Stage::kBetweenSteps, nothing);
}

kangaroo_status kangaroo_round_begin_step(kangaroo_round* round, int64_t step) {
  if (auto bad = given(round, "begin_step")) return bad;
  if (auto bad = round->at_stage("begin_step", Stage::kBetweenSteps)) return bad;
  if (step != round->next_step || step >= round->config.num_steps) {
    return invalid("round: begin_step: expected step %lld of %lld, got step %lld",
                   static_cast<long long>(round->next_step),
                   static_cast<long long>(round->config.num_steps), static_cast<long long>(step));
  }
  return begin(*round, Stage::kInStep, [=] {
    const bool gated = round->conditional() && (step > 0 || round->fronted());
    return gated ? round->gate(round->config.stopped, true) : KANGAROO_OK;
  });
}

kangaroo_status kangaroo_round_end_step(kangaroo_round* round) {
  return end(round, "end_step", Stage::kInStep, Stage::kBetweenSteps, [=] {
    const bool gated = round->next_step > 0 || round->fronted();
    ++round->next_step;
    const bool aside = round->config.mode == KANGAROO_ROUND_CONDITIONAL && gated;
    return aside ? round->builder.leave() : KANGAROO_OK;
  });
}

kangaroo_status kangaroo_round_begin_found(kangaroo_round* round) {
  if (auto bad = given(round, "begin_found")) return bad;
  if (auto bad = round->at_stage("begin_found", Stage::kBetweenSteps)) return bad;
  if (!round->fronted()) {
    return invalid("round: begin_found: expected a round with a front, got one without");
  }
  if (auto bad = round->behind_steps("begin_found")) return bad;
  return begin(*round, Stage::kInFound, [=] {
    if (auto bad = round->leave_steps()) return bad;
    return round->conditional() ? round->gate(round->config.found, false) : KANGAROO_OK;
  });
}

kangaroo_status kangaroo_round_end_found(kangaroo_round* round) {
  return end(round, "end_found", Stage::kInFound, Stage::kBeforeTail,
             [=] { return round->conditional() ? round->builder.leave() : KANGAROO_OK; });
}

kangaroo_status kangaroo_round_begin_tail(kangaroo_round* round) {
  if (auto bad = given(round, "begin_tail")) return bad;
  const bool entered = round->stage == Stage::kBeforeTail;
  if (auto bad = round->at_stage("begin_tail", entered ? Stage::kBeforeTail : Stage::kBetweenSteps))
    return bad;
  if (auto bad = round->behind_steps("begin_tail")) return bad;
  return begin(*round, Stage::kInTail, [=] { return round->leave_steps(); });
}

kangaroo_status kangaroo_round_end_tail(kangaroo_round* round) {
  return end(round, "end_tail", Stage::kInTail, Stage::kBehindTail, nothing);
}

kangaroo_status kangaroo_round_finish(kangaroo_round* round) {
  if (auto bad = given(round, "finish")) return bad;
  if (auto bad = round->at_stage("finish", Stage::kBehindTail)) return bad;
  return record(*round, [=] {
    if (auto bad = round->close()) return bad;
    round->stage = Stage::kIdle;
    return round->adopt(round->builder.finish());
  });
}

void kangaroo_round_abort(kangaroo_round* round) {
  if (round) round->abort();
}
