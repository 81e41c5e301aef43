// The round on the real runtime: without a device it says so; on one, fills stand in for a model.
#include <cuda_runtime.h>

#include <cstring>

#include "../testing.h"
#include "kangaroo/round.h"

namespace {

constexpr int32_t kTokens = 10;
constexpr int64_t kToken = 0x0707070707070707;

bool ok(cudaError_t error) {
  if (error != cudaSuccess) std::printf("CUDA: %s\n", cudaGetErrorString(error));
  return error == cudaSuccess;
}

bool done(kangaroo_status status) {
  if (status != KANGAROO_OK) std::printf("%s\n", kangaroo_last_error());
  return status == KANGAROO_OK;
}

struct Buffers {
  int32_t* stopped = nullptr;
  int32_t* path_len = nullptr;
  int64_t* bonus = nullptr;
  int32_t* found = nullptr;
};

kangaroo_round_config config_of(const Buffers& buffers, kangaroo_round_mode mode, bool fronted) {
  kangaroo_round_config c = {};
  c.mode = mode;
  c.num_steps = 3;
  c.ahead = 2;
  c.batch = c.nodes = 1;
  c.stopped = buffers.stopped;
  c.path_len = buffers.path_len;
  c.bonus = buffers.bonus;
  if (fronted) c.found = buffers.found;
  return c;
}

// The front, or step 0, stops the sequence, so that the steps behind must not run; step 2 is empty.
// With a front, what is run for drafts that were found writes the bonus token.
bool capture(kangaroo_round* round, const Buffers& buffers, const kangaroo_round_config& config,
             cudaStream_t stream) {
  const bool conditional = config.mode != KANGAROO_ROUND_EARLY_RETURN;
  const int64_t stopping = config.found ? -1 : 0;
  bool good = done(kangaroo_round_capture(round, stream));
  if (config.found) {
    good = good && done(kangaroo_round_begin_front(round));
    good = good && ok(cudaMemsetAsync(buffers.stopped, 1, 4, stream));
    good = good && ok(cudaMemsetAsync(buffers.found, 1, 4, stream));
    good = good && done(kangaroo_round_end_front(round));
  }
  for (int64_t s = 0; good && s < 3; ++s) {
    good = done(kangaroo_round_begin_step(round, s));
    if (s == stopping) good = good && ok(cudaMemsetAsync(buffers.stopped, 1, 4, stream));
    if (s == stopping + 1 && conditional) {
      good = good && ok(cudaMemsetAsync(buffers.bonus, 9, 8, stream));
    }
    good = good && done(kangaroo_round_end_step(round));
  }
  if (config.found) {
    good = good && done(kangaroo_round_begin_found(round));
    good = good && ok(cudaMemsetAsync(buffers.bonus, 7, 8, stream));
    good = good && done(kangaroo_round_end_found(round));
  }
  good = good && done(kangaroo_round_begin_tail(round));
  good = good && ok(cudaMemsetAsync(buffers.path_len, 0, 4, stream));
  return good && done(kangaroo_round_end_tail(round)) && done(kangaroo_round_finish(round));
}

void decode(kangaroo_round* round, cudaStream_t stream) {
  EXPECT(done(kangaroo_round_start(round, 0, kTokens, stream)));
  int num_tokens = 0;
  bool finished = false;
  for (int i = 0; i < kTokens + 3; ++i) {
    while (kangaroo_round_unread(round) < 2 && done(kangaroo_round_launch(round, stream))) {
    }
    kangaroo_round_result result = {};
    EXPECT(done(kangaroo_round_wait(round, -1, &result)) && result.ready);
    if (!result.ready) return;
    EXPECT(result.round >= i && result.num_tokens[0] == (finished ? 0 : 1));
    if (!finished) EXPECT(result.tokens[0] == kToken);
    num_tokens += result.num_tokens[0];
    finished = result.done[0] != 0;
  }
  EXPECT(num_tokens == kTokens && finished);
  kangaroo_round_result result = {};
  while (kangaroo_round_unread(round) > 0 && done(kangaroo_round_wait(round, -1, &result))) {
  }
}

void on_device(const Buffers& buffers, kangaroo_round_mode mode, bool fronted,
               cudaStream_t stream) {
  const kangaroo_round_config config = config_of(buffers, mode, fronted);
  kangaroo_round* round = nullptr;
  EXPECT(done(kangaroo_round_create(&config, &round)));
  if (!round) return;
  for (int times = 0; times < 3; ++times) {  // the later ones update the graph in place
    EXPECT(ok(cudaMemset(buffers.bonus, fronted ? 5 : 7, 8)) && ok(cudaDeviceSynchronize()));
    if (!capture(round, buffers, config, stream)) break;
    decode(round, stream);
  }
  std::printf("mode %d: %lld instantiations for 3 captures\n", static_cast<int>(mode),
              static_cast<long long>(kangaroo_round_instantiations(round)));
  EXPECT(ok(cudaGetLastError()));
  kangaroo_round_destroy(round);
}

void without_device() {
  int32_t number = 0;
  int64_t token = 0;
  const kangaroo_round_config config =
      config_of({&number, &number, &token, &number}, KANGAROO_ROUND_CONDITIONAL, false);
  kangaroo_round* round = nullptr;
  EXPECT(kangaroo_round_create(&config, &round) == KANGAROO_CUDA_ERROR && !round);
  EXPECT(std::strstr(kangaroo_last_error(), "round: cudaGetDevice: CUDA: ") != nullptr);
  std::printf("no device: %s\n", kangaroo_last_error());
}

}  // namespace

int main() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    without_device();
    return testing::result();
  }
  Buffers buffers;
  cudaStream_t stream = nullptr;
  EXPECT(ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
  EXPECT(ok(cudaMalloc(&buffers.stopped, 4)) && ok(cudaMalloc(&buffers.path_len, 4)) &&
         ok(cudaMalloc(&buffers.bonus, 8)) && ok(cudaMalloc(&buffers.found, 4)));
  for (const auto mode :
       {KANGAROO_ROUND_CONDITIONAL, KANGAROO_ROUND_NESTED, KANGAROO_ROUND_EARLY_RETURN}) {
    for (const bool fronted : {false, true}) on_device(buffers, mode, fronted, stream);
  }
  return testing::result();
}
