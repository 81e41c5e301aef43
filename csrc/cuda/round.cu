// round: creating and destroying it, launches, and reading what they brought.
#include <chrono>
#include <memory>
#include <thread>

#include "check.h"
#include "error.h"
#include "kangaroo/round.h"
#include "round_object.h"

using namespace kangaroo;
using Stage = kangaroo::RoundStage;

namespace {

constexpr int kLeastDriver = 12040;  // conditional nodes
constexpr int kSpins = 4096;         // looks at the ring between two questions to CUDA

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

kangaroo_status check(const kangaroo_round_config& c) {
  Check check("round");
  check.within("mode", c.mode, KANGAROO_ROUND_CONDITIONAL, KANGAROO_ROUND_EARLY_RETURN);
  check.within("num_steps", c.num_steps, 0, KANGAROO_ROUND_MAX_STEPS);
  check.within("ahead", c.ahead, 1, KANGAROO_ROUND_MAX_AHEAD);
  check.within("batch", c.batch, 1, KANGAROO_ROUND_MAX_BATCH);
  check.within("nodes", c.nodes, 1, KANGAROO_ROUND_MAX_NODES);
  check.within("num_eos", c.num_eos, 0, KANGAROO_ROUND_MAX_EOS);
  check.array("stopped", c.stopped, c.batch, 1, sizeof(int32_t));
  check.array("path_len", c.path_len, c.batch, 1, sizeof(int32_t));
  check.array("bonus", c.bonus, c.batch, 1, sizeof(int64_t));
  if (c.num_nodes) check.array("num_nodes", c.num_nodes, c.batch, 1, sizeof(int32_t));
  if (c.found) check.array("found", c.found, c.batch, 1, sizeof(int32_t));
  check.array("eos_ids", c.eos_ids, c.num_eos, 1, sizeof(int64_t));
  if (c.nodes > 1) {  // of one node, only the bonus token is read
    check.at_least("token_stride", c.token_stride, c.nodes);
    check.array("tokens", c.tokens, c.batch, c.token_stride, sizeof(int64_t));
  }
  if (c.nodes > 1 && c.path) {
    check.at_least("path_stride", c.path_stride, c.nodes);
    check.array("path", c.path, c.batch, c.path_stride, sizeof(int64_t));
  }
  return check.status();
}

kangaroo_status check_driver() {
  int version = 0;
  if (auto bad = tried("cudaDriverGetVersion", cudaDriverGetVersion(&version))) return bad;
  if (version >= kLeastDriver) return KANGAROO_OK;
  invalid(
      "round: expected a driver for CUDA 12.4 or later, got one for %d.%d: conditional nodes "
      "need it; use early returns",
      version / 1000, version % 1000 / 10);
  return KANGAROO_UNSUPPORTED;
}

kangaroo_status check_unread(const kangaroo_round* round, const char* call,
                             const kangaroo_round_result* result) {
  if (auto bad = given(round, call)) return bad;
  if (!result) return invalid("round: %s: expected the address of a result, got NULL", call);
  if (round->unread() > 0) return KANGAROO_OK;
  return invalid("round: %s: expected a round that is unread, got none", call);
}

bool take(kangaroo_round& round, kangaroo_round_result* result) {
  if (!round.memory.read(round.read, result)) return false;
  ++round.read;
  return true;
}

bool take_spinning(kangaroo_round& round, kangaroo_round_result* result) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (take(round, result)) return true;
    pause_briefly();
  }
  return false;
}

}  // namespace

kangaroo_status kangaroo_round_create(const kangaroo_round_config* config, kangaroo_round** round) {
  return entry("round", config, [round](const kangaroo_round_config& c) {
    if (!round) return invalid("round: create: expected where to put the round, got NULL");
    *round = nullptr;
    if (auto bad = check(c)) return bad;
    auto made = std::make_unique<kangaroo_round>(c);
    if (auto bad = tried("cudaGetDevice", cudaGetDevice(&made->device))) return bad;
    if (made->conditional()) {
      if (auto bad = check_driver()) return bad;
    }
    if (auto bad = made->memory.allocate(c)) return bad;
    *round = made.release();
    return KANGAROO_OK;
  });
}

void kangaroo_round_destroy(kangaroo_round* round) {
  if (!round) return;
  // Another stream of this thread may be capturing, which would forbid to free memory.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const bool exchanged = cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess;
  round->abort();
  round->wait_for_device();
  delete round;
  if (exchanged) cudaThreadExchangeStreamCaptureMode(&mode);
  cudaGetLastError();
}

const int32_t* kangaroo_round_done(const kangaroo_round* round) {
  return round ? round->memory.state().done : nullptr;
}

int64_t kangaroo_round_instantiations(const kangaroo_round* round) {
  return round ? round->instantiations : 0;
}

kangaroo_status kangaroo_round_start(kangaroo_round* round, int64_t sequence, int32_t max_tokens,
                                     void* stream) {
  if (auto bad = given(round, "start")) return bad;
  Check check("round");
  check.within("sequence", sequence, 0, round->config.batch - 1);
  check.within("max_tokens", max_tokens, 0, INT32_MAX);
  if (!check.ok()) return check.status();
  if (auto bad = round->on_own_device("start")) return bad;
  RoundStartParams p = {round->memory.state(), sequence, max_tokens};
  void* params[] = {&p};
  const auto on = static_cast<cudaStream_t>(stream);
  const auto error = cudaLaunchKernel(reinterpret_cast<const void*>(&_round_start_kernel), dim3(1),
                                      dim3(kRoundThreads), params, 0, on);
  if (auto bad = tried("cudaLaunchKernel", error)) return bad;
  round->stream = on;
  round->used = true;
  return KANGAROO_OK;
}

kangaroo_status kangaroo_round_launch(kangaroo_round* round, void* stream) {
  if (auto bad = given(round, "launch")) return bad;
  if (auto bad = round->at_stage("launch", Stage::kIdle)) return bad;
  if (!round->exec) return invalid("round: launch: expected a finished capture, got none");
  if (round->unread() >= static_cast<uint64_t>(round->config.ahead)) {
    return invalid("round: launch: expected fewer than %lld unread rounds, got %lld",
                   static_cast<long long>(round->config.ahead),
                   static_cast<long long>(round->unread()));
  }
  if (auto bad = round->on_own_device("launch")) return bad;
  const auto on = static_cast<cudaStream_t>(stream);
  if (auto bad = tried("cudaGraphLaunch", cudaGraphLaunch(round->exec.get(), on))) return bad;
  round->stream = on;
  round->used = true;
  ++round->launched;
  return KANGAROO_OK;
}

int64_t kangaroo_round_unread(const kangaroo_round* round) {
  return round ? static_cast<int64_t>(round->unread()) : 0;
}

kangaroo_status kangaroo_round_poll(kangaroo_round* round, kangaroo_round_result* result) {
  if (auto bad = check_unread(round, "poll", result)) return bad;
  take(*round, result);
  return KANGAROO_OK;
}

kangaroo_status kangaroo_round_wait(kangaroo_round* round, int64_t timeout_us,
                                    kangaroo_round_result* result) {
  if (auto bad = check_unread(round, "wait", result)) return bad;
  const auto start = std::chrono::steady_clock::now();
  while (!take_spinning(*round, result)) {
    const cudaError_t state = cudaStreamQuery(round->stream);
    if (state != cudaSuccess && state != cudaErrorNotReady) return tried("cudaStreamQuery", state);
    cudaGetLastError();  // "not ready" counts as an error there
    if (state == cudaSuccess) {
      if (take(*round, result)) return KANGAROO_OK;
      return cuda_error("round: wait", "the stream has nothing left to do, and no round came back");
    }
    using std::chrono::microseconds;
    const auto waited = std::chrono::steady_clock::now() - start;
    const int64_t waited_us = std::chrono::duration_cast<microseconds>(waited).count();
    if (timeout_us >= 0 && waited_us >= timeout_us) return KANGAROO_OK;
    std::this_thread::yield();
  }
  return KANGAROO_OK;
}
