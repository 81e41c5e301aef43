// top1_confidence on the emulator against logits in double: all types and alignments, subsets of
// the vocabulary, ties, numbers that are none, the chain, and the bits of a row whatever stands
// beside.
#include <algorithm>

#include "arrays.h"
#include "kangaroo/cuda.h"

using testing::Array;
using testing::noise;

namespace {

constexpr float kEps = 1e-5f;

struct Case {
  int64_t batch, nodes, width, vocab;
  int64_t gap = 0;     // elements behind every row of h and of the weight
  int64_t offset = 0;  // elements behind an aligned address
  int64_t every = 0;   // not 0: only each of so many tokens may be drafted
};

struct Inputs {
  Case c;
  kangaroo_dtype dtype;
  Array h, weight, norm;
  std::vector<int32_t> ids;

  Inputs(const Case& shape, kangaroo_dtype type)
      : c(shape),
        dtype(type),
        h(type, noise(c.batch * ((c.width + c.gap) * c.nodes + c.gap), 1), c.offset),
        weight(type, noise(c.vocab * (c.width + c.gap), 2), c.offset),
        norm(type, noise(c.width, 3), c.offset) {
    for (int64_t i = 0; i < weight.count(); ++i) {
      weight.set(i, weight[i] * 2 / std::sqrt(static_cast<float>(c.width)));
    }
    for (int64_t id = c.every / 2; c.every > 0 && id < c.vocab; id += c.every) {
      ids.push_back(static_cast<int32_t>(id));
    }
  }
  int64_t rows() const { return c.batch * c.nodes; }
  int64_t at(int64_t row) const { return row * (c.width + c.gap) + row / c.nodes * c.gap; }
};

struct Chain {
  std::vector<int64_t> tokens;
  std::vector<int32_t> positions, num_nodes, stopped;
  std::vector<float> threshold;
  int64_t capacity;

  Chain(std::vector<int32_t> nodes, std::vector<int32_t> stops, std::vector<float> thresholds,
        int64_t size)
      : tokens(nodes.size() * static_cast<std::size_t>(size), -9),
        positions(nodes.size() * static_cast<std::size_t>(size), 70),
        num_nodes(std::move(nodes)),
        stopped(std::move(stops)),
        threshold(std::move(thresholds)),
        capacity(size) {}
  kangaroo_draft_chain view() {
    return {tokens.data(),  positions.data(), num_nodes.data(),
            stopped.data(), threshold.data(), static_cast<int64_t>(num_nodes.size()),
            capacity};
  }
  bool operator==(const Chain& other) const {
    return tokens == other.tokens && positions == other.positions && num_nodes == other.num_nodes &&
           stopped == other.stopped;
  }
};

struct Result {
  std::vector<int64_t> tokens;
  std::vector<float> confidence;

  bool operator==(const Result& other) const {
    return tokens == other.tokens && confidence == other.confidence;
  }
};

kangaroo_top1_confidence_params params_of(Inputs& in, Result& to) {
  const Case& c = in.c;
  const int64_t row = c.width + c.gap;
  kangaroo_top1_confidence_params p = {};
  p.h = {in.h.data(), in.dtype, c.batch, c.nodes, c.width, row * c.nodes + c.gap, row};
  p.head.weight = {in.weight.data(), in.dtype, c.vocab, c.width, row};
  p.head.token_ids = in.ids.empty() ? nullptr : in.ids.data();
  p.head.num_ids = static_cast<int64_t>(in.ids.size());
  p.norm = kangaroo_vector_of(in.norm.data(), in.dtype, c.width);
  p.tokens = to.tokens.data();
  p.confidence = to.confidence.data();
  p.eps = kEps;
  return p;
}

Result run(Inputs& in, Chain* chain = nullptr) {
  const auto rows = static_cast<std::size_t>(in.rows());
  Result to = {std::vector<int64_t>(rows, -7), std::vector<float>(rows, NAN)};
  kangaroo_top1_confidence_params p = params_of(in, to);
  kangaroo_draft_chain view = {};
  if (chain) view = chain->view();
  if (chain) p.chain = &view;
  const int64_t size = kangaroo_top1_confidence_cuda_workspace(&p);
  EXPECT(size >= 0);
  std::vector<unsigned char> workspace(static_cast<std::size_t>(std::max<int64_t>(size, 0)), 0xff);
  testing::arrive_late(in.h);
  EXPECT(kangaroo_top1_confidence_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
  return to;
}

bool may_draft(const Inputs& in, int64_t token) {
  return in.ids.empty() ||
         std::find(in.ids.begin(), in.ids.end(), static_cast<int32_t>(token)) != in.ids.end();
}

std::vector<double> logits_of(const Inputs& in, const testing::Floats& weight, int64_t row) {
  Array x(in.dtype, in.c.width);
  double squares = 0;
  for (int64_t k = 0; k < in.c.width; ++k) squares += std::pow(in.h[in.at(row) + k], 2);
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(in.c.width) + kEps);
  for (int64_t k = 0; k < in.c.width; ++k) {
    x.set(k, static_cast<float>(in.h[in.at(row) + k] * inverse));
    x.set(k, x[k] * in.norm[k]);
  }
  const testing::Floats values = values_of(x);
  std::vector<double> logits;
  for (int64_t token = 0; token < in.c.vocab; ++token) {
    const float* w = weight.data() + token * (in.c.width + in.c.gap);
    double sum = may_draft(in, token) ? 0 : -INFINITY;
    for (std::size_t k = 0; std::isfinite(sum) && k < values.size(); ++k) {
      sum += double{values[k]} * w[k];
    }
    logits.push_back(sum);
  }
  return logits;
}

void expect_best(const Inputs& in, const Result& result) {
  const testing::Floats weight = values_of(in.weight);
  for (int64_t row = 0; row < in.rows(); ++row) {
    const std::vector<double> logits = logits_of(in, weight, row);
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - top);
    const int64_t token = result.tokens[static_cast<std::size_t>(row)];
    const double allowed = 8 * testing::half_ulp(in.dtype) + 1e-5;  // inputs, the other way rounded
    EXPECT(token >= 0 && token < in.c.vocab && may_draft(in, token));
    EXPECT(logits[static_cast<std::size_t>(token)] >= top - 2 * allowed);
    const double confidence = result.confidence[static_cast<std::size_t>(row)];
    EXPECT(std::fabs(confidence * sum - 1) <= 4 * allowed);
  }
}

void expect_same_rows(const Inputs& in, const Result& all, int64_t first, int64_t count) {
  Case c = in.c;
  c.batch = count;
  c.nodes = 1;
  Inputs part(c, in.dtype);
  for (int64_t i = 0; i < count * c.width; ++i) {
    part.h.set(part.at(i / c.width) + i % c.width, in.h[in.at(first + i / c.width) + i % c.width]);
  }
  const Result result = run(part);
  EXPECT(std::equal(result.tokens.begin(), result.tokens.end(), all.tokens.begin() + first));
  EXPECT(std::memcmp(result.confidence.data(), all.confidence.data() + first,
                     static_cast<std::size_t>(count) * sizeof(float)) == 0);
}

void check(const Case& c, kangaroo_dtype dtype) {
  Inputs in(c, dtype);
  const Result result = run(in);
  expect_best(in, result);
  EXPECT(run(in) == result);
  for (const int64_t count : {1, 16, 17}) {
    if (count < in.rows()) expect_same_rows(in, result, in.rows() - count, count);
  }
}

void check(const Case& c) {
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) check(c, dtype);
}

// The same row of the weight for several tokens, in one tile and in different ones.
void check_ties(kangaroo_dtype dtype, int64_t every) {
  Inputs in({1, 4, 40, 300, 0, 0, every}, dtype);
  const Result before = run(in);
  for (int64_t row = 0; row < 4; ++row) {
    const int64_t best = before.tokens[static_cast<std::size_t>(row)];
    Inputs tied = in;
    for (const int64_t token : {best / 2, best, (best + 300) / 2, int64_t{299}}) {
      for (int64_t k = 0; k < 40; ++k) tied.weight.set(token * 40 + k, in.weight[best * 40 + k]);
    }
    const Result after = run(tied);
    const int64_t lowest = may_draft(in, best / 2) ? best / 2 : best;
    EXPECT(after.tokens[static_cast<std::size_t>(row)] == lowest);
  }
}

// Logits that are no numbers rank last; where there is nothing else, the first token is the best.
void check_not_a_number(kangaroo_dtype dtype) {
  Inputs in({1, 1, 16, 70}, dtype);
  const int64_t best = run(in).tokens[0];
  in.weight.set(best * 16, NAN);
  Inputs without = in;
  for (int64_t k = 0; k < 16; ++k) without.weight.set(best * 16 + k, 0);
  const Result result = run(in);
  EXPECT(result.tokens[0] == run(without).tokens[0]);
  EXPECT(result.confidence[0] > 0 && result.confidence[0] < 1);
  for (int64_t i = 0; i < in.weight.count(); ++i) in.weight.set(i, i % 3 ? NAN : -INFINITY);
  const Result nothing = run(in);
  EXPECT(nothing.tokens[0] == 0);
  EXPECT(std::fabs(nothing.confidence[0] - 1.0f / 70) < 1e-6f);
}

// Ids outside the vocabulary are not read, and not chosen.
void check_lying_ids(kangaroo_dtype dtype) {
  Inputs in({1, 2, 24, 50}, dtype);
  in.ids = {-1, 3, 50, INT32_MAX, 7, INT32_MIN};
  for (int32_t id = 60; id < 200; ++id) in.ids.push_back(id);
  const Result result = run(in);
  for (const int64_t token : result.tokens) EXPECT(token == 3 || token == 7);
  in.ids = {-1, 50};
  EXPECT(run(in).tokens[0] == 0 && run(in).confidence[1] == 0);
}

void check_chain() {
  Inputs in({7, 2, 24, 50}, KANGAROO_BFLOAT16);
  const Result result = run(in);
  //            goes on; not sure; stopped; full now; full before; no root; a threshold of none
  Chain chain({1, 2, 2, 3, 4, 0, 1}, {0, 0, 1, 0, 0, 0, 0}, {0, 2, 0, 0, 0, 0, NAN}, 4);
  Chain expected = chain;
  const auto grown = [&](std::size_t b, std::size_t node, int32_t stops) {
    expected.tokens[b * 4 + node] = result.tokens[2 * b + 1];
    expected.positions[b * 4 + node] = 71;
    expected.num_nodes[b] = static_cast<int32_t>(node + 1);
    expected.stopped[b] = stops;
  };
  grown(0, 1, 0);
  grown(1, 2, 1);
  grown(3, 3, 1);
  expected.stopped[4] = 1;
  grown(6, 1, 1);
  EXPECT(run(in, &chain) == result);
  EXPECT(chain == expected);
  Chain lies({-1, INT32_MIN, INT32_MAX, 5, 1, 1, 1}, {0, 0, 0, 0, 7, 1, 1}, {0, 0, 0, 0, 0, 0, 0},
             4);
  Chain kept = lies;
  kept.stopped[2] = kept.stopped[3] = 1;
  EXPECT(run(in, &lies) == result);
  EXPECT(lies == kept);
}

// A chain grows by replays of one launch, each with the workspace as the last one left it.
void check_replays() {
  Inputs in({2, 1, 24, 50}, KANGAROO_FLOAT32);
  Result to = {{0, 0}, {0, 0}};
  kangaroo_top1_confidence_params p = params_of(in, to);
  Chain chain({1, 1}, {0, 0}, {0, 0}, 5);
  const kangaroo_draft_chain view = chain.view();
  p.chain = &view;
  std::vector<unsigned char> workspace(
      static_cast<std::size_t>(kangaroo_top1_confidence_cuda_workspace(&p)), 0xff);
  for (int32_t replay = 1; replay < 6; ++replay) {
    EXPECT(kangaroo_top1_confidence_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
    EXPECT(kangaroo_top1_confidence_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
    cuda_on_cpu::synchronize();
    EXPECT(chain.num_nodes[1] == std::min(2 * replay + 1, 5));
    EXPECT(chain.stopped[1] == (replay >= 2));
  }
  EXPECT(chain.positions[9] == 74 && chain.tokens[9] == to.tokens[1]);
}

void check_refusals() {
  Inputs in({2, 3, 16, 24}, KANGAROO_BFLOAT16);
  Result to = {std::vector<int64_t>(6), std::vector<float>(6)};
  Chain chain({1, 1}, {0, 0}, {0, 0}, 5);
  kangaroo_draft_chain view = chain.view();
  std::vector<unsigned char> workspace(4096);
  const auto refused = [&](const char* message, const auto& change) {
    kangaroo_top1_confidence_params p = params_of(in, to);
    view = chain.view();
    p.chain = &view;
    change(p);
    EXPECT_REFUSED(kangaroo_top1_confidence_cuda(&p, workspace.data(), nullptr), message);
    EXPECT(kangaroo_top1_confidence_cuda_workspace(&p) == -1);
  };
  using Params = kangaroo_top1_confidence_params;
  EXPECT_REFUSED(kangaroo_top1_confidence_cuda(nullptr, nullptr, nullptr), "params");
  refused("head.weight.rows: expected 1 to", [](Params& p) { p.head.weight.rows = 0; });
  refused("head.weight.width: expected 16", [](Params& p) { p.head.weight.width = 8; });
  refused("norm: expected the address", [](Params& p) { p.norm.data = nullptr; });
  refused("head.num_ids: expected 1 to", [](Params& p) {
    static const int32_t id = 0;
    p.head.token_ids = &id;
    p.head.num_ids = 0;
  });
  refused("tokens: expected the address", [](Params& p) { p.tokens = nullptr; });
  refused("chain.batch: expected 2 to 2", [&](Params&) { view.batch = 1; });
  refused("chain.stopped", [&](Params&) { view.stopped = nullptr; });
  refused("eps: expected", [](Params& p) { p.eps = INFINITY; });
  kangaroo_top1_confidence_params p = params_of(in, to);
  EXPECT_REFUSED(kangaroo_top1_confidence_cuda(&p, nullptr, nullptr), "workspace");
  p.h.batch = 0;
  EXPECT(kangaroo_top1_confidence_cuda(&p, nullptr, nullptr) == KANGAROO_OK);
}

}  // namespace

int main() {
  check({1, 1, 64, 128});
  check({2, 3, 200, 1000});
  check({1, 20, 72, 333});
  check({1, 70, 24, 70}, KANGAROO_BFLOAT16);
  check({3, 2, 37, 200, 3});
  check({1, 2, 64, 130, 8, 1});
  check({1, 1, 8, 1});
  check({2, 2, 80, 700, 0, 0, 3});
  check({1, 3, 33, 90, 0, 0, 7});
  check({1, 1, 16, 17000}, KANGAROO_FLOAT16);  // more tiles than threads that merge them
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) {
    check_ties(dtype, 0);
    check_ties(dtype, 2);
    check_not_a_number(dtype);
    check_lying_ids(dtype);
  }
  check_chain();
  check_replays();
  check_refusals();
  return testing::result();
}
