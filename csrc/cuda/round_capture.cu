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
    case Stage::kBetweenPieces:
      return "between the pieces of a capture";
    case Stage::kInStep:
      return "inside a step";
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
  const uint64_t ungated = conditional() ? std::min<uint64_t>(num_steps, 1) : num_steps;
  RoundOpenParams p = {memory.state(), config.stopped, config.num_nodes, config.batch, ungated, 0,
                       conditional()};
  if (conditional()) {
    if (auto bad = builder.condition(&p.handle)) return bad;
  }
  const void* const function = reinterpret_cast<const void*>(&_round_open_kernel);
  if (auto bad = builder.kernel(function, &p)) return bad;
  return conditional() ? builder.enter(p.handle) : KANGAROO_OK;
}

kangaroo_status kangaroo_round::gate() {
  RoundGateParams p = {memory.state(), config.stopped, config.batch, 0};
  if (auto bad = builder.condition(&p.handle)) return bad;
  const void* const function = reinterpret_cast<const void*>(&_round_gate_kernel);
  if (auto bad = builder.kernel(function, &p)) return bad;
  return builder.enter(p.handle);
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
    round->stage = Stage::kBetweenPieces;
    return round->open();
  });
}

kangaroo_status kangaroo_round_begin_step(kangaroo_round* round, int64_t step) {
  if (auto bad = given(round, "begin_step")) return bad;
  if (auto bad = round->at_stage("begin_step", Stage::kBetweenPieces)) return bad;
  if (step != round->next_step || step >= round->config.num_steps) {
    return invalid("round: begin_step: expected step %lld of %lld, got step %lld",
                   static_cast<long long>(round->next_step),
                   static_cast<long long>(round->config.num_steps), static_cast<long long>(step));
  }
  return record(*round, [=] {
    if (round->conditional() && step > 0) {
      if (auto bad = round->gate()) return bad;
    }
    round->stage = Stage::kInStep;
    return round->builder.begin_capture(round->capture_stream);
  });
}

kangaroo_status kangaroo_round_end_step(kangaroo_round* round) {
  if (auto bad = given(round, "end_step")) return bad;
  if (auto bad = round->at_stage("end_step", Stage::kInStep)) return bad;
  return record(*round, [=] {
    if (auto bad = round->builder.end_capture()) return bad;
    round->stage = Stage::kBetweenPieces;
    const bool aside = round->config.mode == KANGAROO_ROUND_CONDITIONAL && round->next_step > 0;
    ++round->next_step;
    return aside ? round->builder.leave() : KANGAROO_OK;
  });
}

kangaroo_status kangaroo_round_begin_tail(kangaroo_round* round) {
  if (auto bad = given(round, "begin_tail")) return bad;
  if (auto bad = round->at_stage("begin_tail", Stage::kBetweenPieces)) return bad;
  if (round->next_step != round->config.num_steps) {
    return invalid("round: begin_tail: expected %lld steps before it, got %lld",
                   static_cast<long long>(round->config.num_steps),
                   static_cast<long long>(round->next_step));
  }
  return record(*round, [=] {
    const std::size_t own_depth = round->conditional() ? 1 : 0;
    while (round->builder.depth() > own_depth) {  // nested steps
      if (auto bad = round->builder.leave()) return bad;
    }
    round->stage = Stage::kInTail;
    return round->builder.begin_capture(round->capture_stream);
  });
}

kangaroo_status kangaroo_round_end_tail(kangaroo_round* round) {
  if (auto bad = given(round, "end_tail")) return bad;
  if (auto bad = round->at_stage("end_tail", Stage::kInTail)) return bad;
  return record(*round, [=] {
    round->stage = Stage::kBehindTail;
    return round->builder.end_capture();
  });
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
