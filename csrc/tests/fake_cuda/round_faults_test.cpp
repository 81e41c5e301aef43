// The round where things go wrong: calls in the wrong order, CUDA calls that fail, captures that
// break. Nothing is left behind, and what still can work does.
#include "../testing.h"
#include "fake_cuda.h"
#include "kangaroo/round.h"
#include "toy.h"

using toy::Decoder;

namespace {

constexpr kangaroo_round_mode kModes[] = {KANGAROO_ROUND_CONDITIONAL, KANGAROO_ROUND_NESTED,
                                          KANGAROO_ROUND_EARLY_RETURN};

bool says(const char* words) {
  const bool found = std::strstr(kangaroo_last_error(), words) != nullptr;
  if (!found) std::printf("expected \"%s\", got \"%s\"\n", words, kangaroo_last_error());
  return found;
}

bool refused(kangaroo_status status, const char* words) {
  return status == KANGAROO_INVALID_ARGUMENT && says(words);
}

bool failed(kangaroo_status status, const char* words) {
  return status == KANGAROO_CUDA_ERROR && says(words) && cudaGetLastError() == cudaSuccess;
}

void decode(Decoder& decoder, int64_t root) {
  decoder.memory.root[0] = root;
  decoder.written[0].clear();
  decoder.done[0] = 0;
  EXPECT(decoder.start(0, 23) == KANGAROO_OK);
  EXPECT(decoder.run() == KANGAROO_OK);
  EXPECT(decoder.written[0] == toy::expected(root, {}, 23));
  kangaroo_round_result result = {};
  while (kangaroo_round_unread(decoder.round) > 0) {
    EXPECT(kangaroo_round_wait(decoder.round, -1, &result) == KANGAROO_OK);
  }
}

void configs() {
  Decoder decoder({KANGAROO_ROUND_CONDITIONAL, 3, 2});
  const auto refuses = [&](auto change, const char* words) {
    kangaroo_round_config config = decoder.config();
    change(config);
    EXPECT(refused(decoder.create(config), words));
    EXPECT(decoder.round == nullptr && fake::calls().empty());
  };
  refuses([](auto& c) { c.mode = static_cast<kangaroo_round_mode>(3); }, "mode: expected 0 to 2");
  refuses([](auto& c) { c.num_steps = -1; }, "num_steps: expected 0 to 64, got -1");
  refuses([](auto& c) { c.ahead = 0; }, "ahead: expected 1 to 8, got 0");
  refuses([](auto& c) { c.batch = 0; }, "batch");
  refuses([](auto& c) { c.nodes = 1 << 20; }, "nodes");
  refuses([](auto& c) { c.stopped = nullptr; }, "stopped");
  refuses([](auto& c) { c.path_len = nullptr; }, "path_len");
  refuses([](auto& c) { c.bonus = nullptr; }, "bonus");
  refuses([](auto& c) { c.tokens = nullptr; }, "tokens");
  refuses([](auto& c) { c.token_stride = 3; }, "token_stride: expected at least 4, got 3");
  refuses([](auto& c) { c.path = c.tokens; }, "path_stride");
  refuses([](auto& c) { c.num_eos = 17; }, "num_eos: expected 0 to 16, got 17");
  refuses([](auto& c) { c.num_eos = 1; }, "eos_ids");
  EXPECT(refused(kangaroo_round_create(nullptr, &decoder.round), "params"));
  const kangaroo_round_config config = decoder.config();
  EXPECT(refused(kangaroo_round_create(&config, nullptr), "where to put"));
  fake::set_driver(12030);
  EXPECT(decoder.create() == KANGAROO_UNSUPPORTED && says("got one for 12.3"));
  kangaroo_round_config plain = decoder.config();
  plain.mode = KANGAROO_ROUND_EARLY_RETURN;
  EXPECT(decoder.create(plain) == KANGAROO_OK);
  kangaroo_round_destroy(decoder.round);
  decoder.round = nullptr;
  fake::reset();
}

void null_rounds() {
  kangaroo_round_result result = {};
  EXPECT(refused(kangaroo_round_capture(nullptr, nullptr), "capture: expected a round, got NULL"));
  EXPECT(refused(kangaroo_round_begin_step(nullptr, 0), "NULL"));
  EXPECT(refused(kangaroo_round_end_step(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_begin_front(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_end_front(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_begin_found(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_end_found(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_begin_tail(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_end_tail(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_finish(nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_start(nullptr, 0, 1, nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_launch(nullptr, nullptr), "NULL"));
  EXPECT(refused(kangaroo_round_poll(nullptr, &result), "NULL"));
  EXPECT(refused(kangaroo_round_wait(nullptr, 0, &result), "NULL"));
  EXPECT(kangaroo_round_done(nullptr) == nullptr && kangaroo_round_unread(nullptr) == 0);
  EXPECT(kangaroo_round_instantiations(nullptr) == 0);
  kangaroo_round_abort(nullptr);
  kangaroo_round_destroy(nullptr);
}

// Every call in the wrong place is refused and changes nothing: the capture goes on behind it.
void wrong_order(bool fronted) {
  Decoder decoder({KANGAROO_ROUND_CONDITIONAL, 2, 1, 1, {}, fronted});
  EXPECT(decoder.create() == KANGAROO_OK);
  kangaroo_round* const r = decoder.round;
  const auto only = [&](const char* allowed) {
    const auto is = [&](const char* name) { return std::strcmp(allowed, name) == 0; };
    if (!is("capture")) EXPECT(refused(kangaroo_round_capture(r, decoder.stream), "capture: "));
    if (!is("begin_front")) EXPECT(refused(kangaroo_round_begin_front(r), "begin_front: "));
    if (!is("end_front")) EXPECT(refused(kangaroo_round_end_front(r), "end_front: "));
    if (!is("begin_step 0")) EXPECT(refused(kangaroo_round_begin_step(r, 0), "begin_step: "));
    if (!is("begin_step 1")) EXPECT(refused(kangaroo_round_begin_step(r, 1), "begin_step: "));
    EXPECT(refused(kangaroo_round_begin_step(r, 2), "begin_step: "));
    if (!is("end_step")) EXPECT(refused(kangaroo_round_end_step(r), "end_step: expected a call "));
    if (!is("begin_found")) EXPECT(refused(kangaroo_round_begin_found(r), "begin_found: "));
    if (!is("end_found")) EXPECT(refused(kangaroo_round_end_found(r), "end_found: "));
    if (!is("begin_tail") && !is("begin_found")) {  // what was found may need nothing
      EXPECT(refused(kangaroo_round_begin_tail(r), "begin_tail: "));
    }
    if (!is("end_tail")) EXPECT(refused(kangaroo_round_end_tail(r), "end_tail: "));
    if (!is("finish")) EXPECT(refused(kangaroo_round_finish(r), "finish: "));
    EXPECT(refused(decoder.launch(), "launch: "));
  };
  only("capture");
  EXPECT(refused(kangaroo_round_capture(r, nullptr), "the default stream"));
  EXPECT(refused(kangaroo_round_capture(r, cudaStreamLegacy), "the default stream"));
  EXPECT(kangaroo_round_capture(r, decoder.stream) == KANGAROO_OK);
  if (fronted) {
    only("begin_front");
    EXPECT(kangaroo_round_begin_front(r) == KANGAROO_OK);
    only("end_front");
    EXPECT(kangaroo_round_end_front(r) == KANGAROO_OK);
  }
  for (int64_t s = 0; s < 2; ++s) {
    only(s == 0 ? "begin_step 0" : "begin_step 1");
    EXPECT(kangaroo_round_begin_step(r, s) == KANGAROO_OK);
    only("end_step");
    EXPECT(kangaroo_round_end_step(r) == KANGAROO_OK);
  }
  if (fronted) {
    only("begin_found");
    EXPECT(kangaroo_round_begin_found(r) == KANGAROO_OK);
    only("end_found");
    EXPECT(kangaroo_round_end_found(r) == KANGAROO_OK);
  }
  only("begin_tail");
  EXPECT(kangaroo_round_begin_tail(r) == KANGAROO_OK);
  only("end_tail");
  EXPECT(kangaroo_round_end_tail(r) == KANGAROO_OK);
  only("finish");
  EXPECT(kangaroo_round_finish(r) == KANGAROO_OK);
  EXPECT(fake::describe() == (fronted ? "open if(gate if(empty) gate if(empty) gate if(empty)) "
                                        "publish"
                                      : "open if(gate if(empty)) publish"));
  EXPECT(refused(decoder.start(1, 5), "sequence: expected 0 to 0, got 1"));
  EXPECT(refused(decoder.start(0, -1), "max_tokens"));
  EXPECT(decoder.launch() == KANGAROO_OK);
  EXPECT(refused(kangaroo_round_capture(r, decoder.stream), "got 1 unread"));
  EXPECT(refused(kangaroo_round_poll(r, nullptr), "the address of a result"));
  kangaroo_round_result result = {};
  EXPECT(kangaroo_round_wait(r, -1, &result) == KANGAROO_OK);
  fake::set_device(1);
  EXPECT(refused(decoder.launch(), "expected device 0 to be current, got 1"));
  EXPECT(refused(decoder.start(0, 1), "expected device 0 to be current, got 1"));
  EXPECT(refused(kangaroo_round_capture(r, decoder.stream), "expected device 0"));
  fake::set_device(0);
}

// Another capture updates the executable; one that CUDA refuses is instantiated; and where neither
// is possible, the old one goes on.
void captured_again() {
  for (const auto mode : kModes) {
    Decoder decoder({mode, 3, 1, 2, {}});
    EXPECT(decoder.create() == KANGAROO_OK);
    for (int times = 0; times < 3; ++times) {
      EXPECT(decoder.capture() == KANGAROO_OK);
      EXPECT(kangaroo_round_instantiations(decoder.round) == 1);
      decode(decoder, 20 + times);
    }
    fake::refuse_updates(true);
    EXPECT(decoder.launch() == KANGAROO_OK);  // read, but perhaps not at its end
    kangaroo_round_result result = {};
    EXPECT(kangaroo_round_wait(decoder.round, -1, &result) == KANGAROO_OK);
    EXPECT(decoder.capture() == KANGAROO_OK);
    EXPECT(kangaroo_round_instantiations(decoder.round) == 2);
    EXPECT(cudaGetLastError() == cudaSuccess);
    decode(decoder, 33);
    EXPECT(kangaroo_round_capture(decoder.round, decoder.stream) == KANGAROO_OK);
    EXPECT(kangaroo_round_begin_step(decoder.round, 0) == KANGAROO_OK);
    kangaroo_round_abort(decoder.round);
    decode(decoder, 34);
    EXPECT(kangaroo_round_instantiations(decoder.round) == 2);
    fake::refuse_updates(false);
  }
  fake::reset();
}

void broken_captures() {
  for (const auto mode : kModes) {
    Decoder decoder({mode, 2});
    EXPECT(decoder.create() == KANGAROO_OK);
    const auto in_step_1 = [&] {
      EXPECT(kangaroo_round_capture(decoder.round, decoder.stream) == KANGAROO_OK);
      EXPECT(kangaroo_round_begin_step(decoder.round, 0) == KANGAROO_OK);
      EXPECT(kangaroo_round_end_step(decoder.round) == KANGAROO_OK);
      EXPECT(kangaroo_round_begin_step(decoder.round, 1) == KANGAROO_OK);
    };
    in_step_1();
    fake::invalidate(decoder.stream);
    EXPECT(failed(kangaroo_round_end_step(decoder.round), "a call between begin and end"));
    in_step_1();
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(decoder.stream, &graph);
    EXPECT(refused(kangaroo_round_end_step(decoder.round), "one whose capture ended"));
    if (mode != KANGAROO_ROUND_EARLY_RETURN) {
      in_step_1();
      fake::capture_host_node(decoder.stream);
      kangaroo_status status = kangaroo_round_end_step(decoder.round);
      if (mode == KANGAROO_ROUND_NESTED) status = kangaroo_round_begin_tail(decoder.round);
      EXPECT(refused(status, "got a node of cudaGraphNodeType 3"));
    }
    EXPECT(refused(kangaroo_round_end_step(decoder.round), "got one outside a capture"));
    EXPECT(decoder.capture() == KANGAROO_OK);
    decode(decoder, 12);
  }
  fake::reset();
}

void lost_rounds() {
  Decoder decoder({KANGAROO_ROUND_CONDITIONAL, 2});
  EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
  kangaroo_round_result result = {};
  for (const int64_t long_us : {INT64_MAX / 1000 + 1, INT64_MAX}) {
    EXPECT(decoder.launch() == KANGAROO_OK);
    EXPECT(kangaroo_round_wait(decoder.round, long_us, &result) == KANGAROO_OK &&
           result.ready == 1);
  }
  EXPECT(decoder.launch() == KANGAROO_OK);
  EXPECT(kangaroo_round_poll(decoder.round, &result) == KANGAROO_OK && result.ready == 0);
  fake::break_stream(cudaErrorNotReady);
  EXPECT(kangaroo_round_wait(decoder.round, 0, &result) == KANGAROO_OK && result.ready == 0);
  fake::break_stream(cudaErrorIllegalAddress);
  EXPECT(failed(kangaroo_round_wait(decoder.round, -1, &result), "cudaStreamQuery"));
  fake::break_stream(cudaSuccess);
  fake::lose_pending();
  EXPECT(failed(kangaroo_round_wait(decoder.round, -1, &result), "no round came back"));
  EXPECT(kangaroo_round_unread(decoder.round) == 1);
}

// Creation, two captures of which the second is instantiated, and decoding: as far as it comes.
kangaroo_status life(Decoder& decoder) {
  if (auto bad = decoder.create()) return bad;
  if (auto bad = decoder.capture()) return bad;
  if (auto bad = decoder.start(0, 9)) return bad;
  if (auto bad = decoder.run()) return bad;
  fake::refuse_updates(true);
  while (kangaroo_round_unread(decoder.round) > 0) {
    kangaroo_round_result result = {};
    if (auto bad = kangaroo_round_wait(decoder.round, -1, &result)) return bad;
  }
  return decoder.capture();
}

// Fails call after call; the caller's own calls between begin and end are not the round's.
void every_call_fails() {
  for (const auto mode : kModes) {
    int num_failures = 0;
    for (int call = 1;; ++call) {
      bool reached = false;
      {
        Decoder decoder({mode, 3, 1, 2, {}, true});
        fake::fail_call(call);
        const kangaroo_status status = life(decoder);
        reached = !fake::failed_call().empty();
        const std::string& name = fake::failed_call();
        const bool harmless = !reached || name == "cudaLaunchKernel" ||
                              name == "cudaGraphDestroy" || name == "cudaGraphExecDestroy" ||
                              name == "cudaGraphExecUpdate";
        const bool told = status == KANGAROO_CUDA_ERROR && says(name.c_str()) &&
                          says("unknown error") && cudaGetLastError() == cudaSuccess;
        EXPECT(told || (harmless && status == KANGAROO_OK));
        num_failures += told;
      }
      EXPECT(fake::num_live() == 0);
      fake::reset();
      if (!reached) break;
    }
    EXPECT(num_failures > 30);
    std::printf("mode %d: %d calls failed in turn\n", mode, num_failures);
  }
}

// Destroying it at any point gives everything back, also where giving back reports failures.
void destroyed_anywhere() {
  for (int calls = 1; calls < 80; ++calls) {
    {
      Decoder decoder({KANGAROO_ROUND_NESTED, 3, 1, 2, {}, true});
      fake::fail_call(calls);
      life(decoder);
      decoder.launch();
      fake::fail_call(1 + calls % 7);
    }
    EXPECT(fake::num_live() == 0);
    fake::reset();
  }
}

}  // namespace

int main() {
  configs();
  null_rounds();
  wrong_order(false);
  wrong_order(true);
  captured_again();
  broken_captures();
  lost_rounds();
  every_call_fails();
  destroyed_anywhere();
  return testing::result();
}
