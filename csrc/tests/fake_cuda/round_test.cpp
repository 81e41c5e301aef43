// The round on the fake runtime: its graphs, its ring, its cuts, and what it refuses.
#include "kangaroo/round.h"

#include <algorithm>
#include <string>

#include "../testing.h"
#include "fake_cuda.h"
#include "toy.h"

using toy::Decoder;
using toy::Shape;

namespace {

constexpr kangaroo_round_mode kModes[] = {KANGAROO_ROUND_CONDITIONAL, KANGAROO_ROUND_NESTED,
                                          KANGAROO_ROUND_EARLY_RETURN};

bool refused(kangaroo_status status, const char* says) {
  const bool found = std::string(kangaroo_last_error()).find(says) != std::string::npos;
  if (!found) std::printf("got \"%s\"\n", kangaroo_last_error());
  return status == KANGAROO_INVALID_ARGUMENT && found;
}

std::string joined(const std::string& one, const std::string& other) {
  return one + (one.empty() || other.empty() ? "" : " ") + other;
}

std::string steps_from(const Shape& shape, int64_t step) {
  if (step == shape.num_steps) return "";
  const std::string own = step == 0 ? "begin step" : "step";
  const std::string rest = steps_from(shape, step + 1);
  const bool gated = step > 0 || shape.fronted;
  if (shape.mode == KANGAROO_ROUND_EARLY_RETURN || !gated) return joined(own, rest);
  if (shape.mode == KANGAROO_ROUND_NESTED) return "gate if(" + joined(own, rest) + ")";
  return joined("gate if(" + own + ")", rest);
}

std::string expected_graph(const Shape& shape) {
  const bool plain = shape.mode == KANGAROO_ROUND_EARLY_RETURN;
  std::string body = steps_from(shape, 0);
  if (shape.fronted && shape.entered) body = joined(body, plain ? "found" : "gate if(found)");
  if (shape.fronted) body = joined("front", body);
  body = joined(body, "tail");
  return plain ? "open " + body + " publish" : "open if(" + body + ") publish";
}

// Every mode, with a front and without.
template <class Body>
void in_every_mode(const Body& body) {
  for (const auto mode : kModes) {
    Shape shape;
    shape.mode = mode;
    body(shape);
    shape.fronted = true;
    body(shape);
    shape.entered = false;
    body(shape);
    fake::reset();
  }
}

// Nodes in order, each behind the one before it.
void graphs() {
  in_every_mode([](Shape shape) {
    for (shape.num_steps = 0; shape.num_steps <= 6; ++shape.num_steps) {
      Decoder decoder(shape);
      EXPECT(decoder.create() == KANGAROO_OK);
      EXPECT(decoder.capture() == KANGAROO_OK);
      EXPECT(fake::describe() == expected_graph(shape));
    }
  });
}

void same_tokens_in_every_mode() {
  in_every_mode([](Shape shape) {
    for (shape.num_steps = 0; shape.num_steps <= 6; ++shape.num_steps) {
      for (shape.batch = 1; shape.batch <= toy::kMaxBatch; ++shape.batch) {
        shape.ahead = 1 + shape.num_steps % 3;
        Decoder decoder(shape);
        EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
        for (int64_t b = 0; b < shape.batch; ++b) {
          EXPECT(decoder.start(b, static_cast<int32_t>(20 + 9 * b)) == KANGAROO_OK);
        }
        EXPECT(decoder.run() == KANGAROO_OK);
        for (int64_t b = 0; b < shape.batch; ++b) {
          EXPECT(decoder.written[b] ==
                 toy::expected(10 + 7 * b, {}, static_cast<int32_t>(20 + 9 * b)));
        }
      }
    }
  });
}

// A step is run if any sequence needs it, and no other is; what was found is seen to if any was.
void steps_stop() {
  in_every_mode([](Shape shape) {
    shape.num_steps = 6;
    shape.batch = 2;
    Decoder decoder(shape);
    int num_found = 0;
    EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
    for (int64_t b = 0; b < 2; ++b) EXPECT(decoder.start(b, 1000) == KANGAROO_OK);
    for (int i = 0; i < 40; ++i) {
      const toy::Memory before = decoder.memory;
      const int needed = toy::steps_needed({before.root[0], before.root[1]}, shape);
      const bool found =
          shape.fronted && (toy::known(before.root[0]) || toy::known(before.root[1]));
      EXPECT(decoder.step() == KANGAROO_OK);
      EXPECT(decoder.memory.num_steps_run - before.num_steps_run == needed);
      const bool plain = shape.mode == KANGAROO_ROUND_EARLY_RETURN;
      EXPECT(decoder.num_steps == (plain ? 6 : needed));
      EXPECT(decoder.memory.num_found_run - before.num_found_run ==
             (shape.entered && (plain ? shape.fronted : found)));
      num_found += found;
    }
    EXPECT(shape.fronted == (num_found > 5 && num_found < 35));
  });
}

// Of rounds without an end every token but one of each was drafted; and more were, of which some
// were wrong.
void counts() {
  in_every_mode([](Shape shape) {
    shape.num_steps = 4;
    shape.batch = shape.ahead = 2;
    Decoder decoder(shape);
    EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
    for (int64_t b = 0; b < 2; ++b) EXPECT(decoder.start(b, 1000) == KANGAROO_OK);
    for (int i = 0; i < 20; ++i) EXPECT(decoder.step() == KANGAROO_OK);
    for (std::size_t b = 0; b < 2; ++b) {
      const auto written = static_cast<int32_t>(decoder.written[b].size());
      EXPECT(decoder.num_accepted[b] == written - 20);
      EXPECT(decoder.num_drafted[b] > decoder.num_accepted[b]);
      EXPECT(decoder.num_drafted[b] < 20 * 4);
    }
  });
}

void ends_and_budgets() {
  const auto greedy = toy::expected(10, {}, 20);
  for (const auto mode : kModes) {
    for (int32_t budget = 0; budget <= 20; ++budget) {
      for (std::size_t end = 0; end < greedy.size(); end += 1 + end % 2) {
        const std::vector<int64_t> eos_ids = {999, greedy[end], greedy[std::min(end + 2, 19uL)]};
        Decoder decoder({mode, 4, 1, 2, eos_ids});
        EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
        EXPECT(decoder.start(0, budget) == KANGAROO_OK);
        EXPECT(decoder.run() == KANGAROO_OK);
        EXPECT(decoder.written[0] == toy::expected(10, eos_ids, budget));
      }
    }
    fake::reset();
  }
}

void launch_ahead() {
  for (int64_t ahead = 1; ahead <= KANGAROO_ROUND_MAX_AHEAD; ++ahead) {
    Decoder decoder({KANGAROO_ROUND_CONDITIONAL, 3, 2, ahead, {}});
    EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
    EXPECT(decoder.start(0, 90) == KANGAROO_OK && decoder.start(1, 60) == KANGAROO_OK);
    fake::run_all();
    kangaroo_round_result result = {};
    EXPECT(refused(kangaroo_round_poll(decoder.round, &result), "unread, got none"));
    for (int64_t i = 0; i < ahead; ++i) EXPECT(decoder.launch() == KANGAROO_OK);
    EXPECT(refused(decoder.launch(), "unread rounds, got"));
    for (int round = 0; round < 60; ++round) {  // many times around the ring
      const auto unread = static_cast<std::size_t>(kangaroo_round_unread(decoder.round));
      const bool ready = fake::pending() < unread;
      EXPECT(kangaroo_round_poll(decoder.round, &result) == KANGAROO_OK);
      EXPECT((result.ready != 0) == ready);
      if (!ready) EXPECT(fake::run_one());
      const auto num_calls = fake::calls().size();
      if (!ready) EXPECT(kangaroo_round_poll(decoder.round, &result) == KANGAROO_OK);
      EXPECT(fake::calls().size() == num_calls);  // no CUDA call
      EXPECT(result.ready == 1 && result.round == round);
      EXPECT(decoder.launch() == KANGAROO_OK);
      if (round % 7 < 3) fake::run_all();  // does not reach the slot that is being read
      decoder.keep(result);
    }
    EXPECT(decoder.written[0] == toy::expected(10, {}, 90));
    EXPECT(decoder.written[1] == toy::expected(17, {}, 60));
  }
  fake::reset();
}

void rounds_behind_the_end_do_nothing() {
  for (const auto mode : kModes) {
    Decoder decoder({mode, 3, 1, 2, {}});
    EXPECT(decoder.create() == KANGAROO_OK && decoder.capture() == KANGAROO_OK);
    EXPECT(decoder.step() == KANGAROO_OK);  // not started: done
    EXPECT(decoder.written[0].empty() && decoder.done[0] == 1);
    EXPECT(decoder.start(0, 5) == KANGAROO_OK);
    decoder.done[0] = 0;
    EXPECT(decoder.run() == KANGAROO_OK);
    const toy::Memory before = decoder.memory;
    for (int i = 0; i < 5; ++i) EXPECT(decoder.step() == KANGAROO_OK);
    EXPECT(decoder.num_steps == (mode == KANGAROO_ROUND_EARLY_RETURN ? 3 : 0));
    EXPECT(decoder.written[0] == toy::expected(10, {}, 5) && decoder.done[0] == 1);
    EXPECT(decoder.memory.num_steps_run == before.num_steps_run);
    EXPECT(decoder.memory.tokens == before.tokens && decoder.memory.root == before.root);
    const bool skipped = mode != KANGAROO_ROUND_EARLY_RETURN;
    EXPECT((decoder.memory.num_tails_run == before.num_tails_run) == skipped);
    while (kangaroo_round_unread(decoder.round) > 0) {  // launched before it begins anew
      kangaroo_round_result result = {};
      EXPECT(kangaroo_round_wait(decoder.round, -1, &result) == KANGAROO_OK);
      EXPECT(result.num_tokens[0] == 0 && result.done[0] == 1);
    }
    decoder.memory.root[0] = 99;
    EXPECT(decoder.start(0, 7) == KANGAROO_OK);
    decoder.written[0].clear();
    decoder.done[0] = 0;
    EXPECT(decoder.run() == KANGAROO_OK);
    EXPECT(decoder.written[0] == toy::expected(99, {}, 7));
  }
  fake::reset();
}

// A path through a tree; lengths and nodes that lie are held within the tree.
void paths() {
  const int64_t path[] = {0, 2, 3, -1, 99, -5, 1, 1};
  int64_t eos_id = -1;
  for (const int32_t path_len : {3, 1, 4, 9, -2}) {
    Decoder decoder({KANGAROO_ROUND_EARLY_RETURN, 3, 2});
    kangaroo_round_config config = decoder.config();
    config.path = path;
    config.path_stride = 4;
    config.eos_ids = &eos_id;
    config.num_eos = 1;
    EXPECT(decoder.create(config) == KANGAROO_OK);
    EXPECT(kangaroo_round_capture(decoder.round, decoder.stream) == KANGAROO_OK);
    for (int64_t s = 0; s < 3; ++s) {
      EXPECT(kangaroo_round_begin_step(decoder.round, s) == KANGAROO_OK);
      EXPECT(kangaroo_round_end_step(decoder.round) == KANGAROO_OK);
    }
    EXPECT(kangaroo_round_begin_tail(decoder.round) == KANGAROO_OK);
    EXPECT(kangaroo_round_end_tail(decoder.round) == KANGAROO_OK);
    EXPECT(kangaroo_round_finish(decoder.round) == KANGAROO_OK);
    EXPECT(fake::describe() == "open publish");
    decoder.memory.tokens = {50, 51, 52, 53, 60, 61, 62, 63};
    decoder.memory.path_len = {path_len, path_len};
    decoder.memory.bonus = {70, 71};
    EXPECT(decoder.start(0, 100) == KANGAROO_OK && decoder.start(1, 100) == KANGAROO_OK);
    EXPECT(decoder.step() == KANGAROO_OK);
    std::vector<int64_t> first = {52, 53, 50};  // -1 is held at the root
    std::vector<int64_t> second = {60, 61, 61};
    const auto len = static_cast<std::size_t>(std::clamp(path_len, 1, 4)) - 1;
    first.resize(len);
    second.resize(len);
    first.push_back(70);
    second.push_back(71);
    EXPECT(decoder.written[0] == first);
    EXPECT(decoder.written[1] == second);
  }
  fake::reset();
}

// Empty pieces are no empty bodies, and what forked joins before the next piece.
void odd_pieces() {
  for (const auto mode : kModes) {
    Decoder decoder({mode, 3});
    toy::Work work = {&decoder.memory};
    EXPECT(decoder.create() == KANGAROO_OK);
    EXPECT(kangaroo_round_capture(decoder.round, decoder.stream) == KANGAROO_OK);
    for (int64_t s = 0; s < 3; ++s) {
      EXPECT(kangaroo_round_begin_step(decoder.round, s) == KANGAROO_OK);
      if (s == 0) {
        fake::capture_fork(decoder.stream, reinterpret_cast<const void*>(&toy::step_kernel), &work);
      }
      EXPECT(kangaroo_round_end_step(decoder.round) == KANGAROO_OK);
    }
    EXPECT(kangaroo_round_begin_tail(decoder.round) == KANGAROO_OK);
    EXPECT(kangaroo_round_end_tail(decoder.round) == KANGAROO_OK);
    EXPECT(kangaroo_round_finish(decoder.round) == KANGAROO_OK);
    const std::string graph = fake::describe();
    if (mode == KANGAROO_ROUND_CONDITIONAL) {
      EXPECT(graph == "open if(step step<> gate<0,1,> if(empty) gate if(empty)) publish");
    } else if (mode == KANGAROO_ROUND_NESTED) {
      EXPECT(graph == "open if(step step<> gate<0,1,> if(gate if(empty))) publish");
    } else {
      EXPECT(graph == "open step step<0,> publish<1,2,>");
    }
  }
  fake::reset();
}

}  // namespace

int main() {
  graphs();
  same_tokens_in_every_mode();
  steps_stop();
  counts();
  ends_and_budgets();
  launch_ahead();
  rounds_behind_the_end_do_nothing();
  paths();
  odd_pieces();
  return testing::result();
}
