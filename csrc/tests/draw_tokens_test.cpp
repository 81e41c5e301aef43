// draw_tokens against one token at a time; Philox's known answers; ties, warps, chains, rows
// without a token; the same bits for every number of rows and threads.
#include "kangaroo/draw_tokens.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "isa/kernels.h"
#include "testing.h"

using testing::Tensor;

namespace {

using Words = std::array<uint32_t, 4>;

struct Draw {
  double temperature = 0.0;
  int32_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  int64_t seed = 0;
  int64_t sequence = 0;
};

struct Drawn {
  std::vector<int64_t> tokens;
  std::vector<float> shares;

  bool operator==(const Drawn& other) const {
    return tokens == other.tokens && shares == other.shares;
  }
};

// Rows of one sequence, at positions from `position`.
struct Case {
  Tensor logits;
  int64_t rows;
  Draw draw;
  int32_t position = 0;
  std::vector<int32_t> ids = {};
};

kangaroo_status run(const Case& c, int64_t k, int32_t threads, Drawn& out) {
  std::vector<int32_t> positions(static_cast<std::size_t>(c.rows));
  std::iota(positions.begin(), positions.end(), c.position);
  const auto count = static_cast<std::size_t>(std::max<int64_t>(c.rows * k, 0));
  out = {std::vector<int64_t>(count, -7), std::vector<float>(count, -7.0f)};
  const Draw& d = c.draw;
  kangaroo_draw_tokens_params p = {};
  p.logits = states_of(c.logits, 1, c.rows);
  p.draws = {&d.temperature, &d.top_k, &d.top_p, &d.min_p, &d.seed, &d.sequence};
  p.positions = positions.data();
  p.token_ids = c.ids.empty() ? nullptr : c.ids.data();
  p.tokens = out.tokens.data();
  p.shares = out.shares.data();
  p.k = k;
  p.num_threads = threads;
  return kangaroo_draw_tokens(&p);
}

Drawn drawn(const Case& c, int64_t k, int32_t threads = 1) {
  Drawn out;
  EXPECT(run(c, k, threads, out) == KANGAROO_OK);
  return out;
}

Words philox(Words counter, uint32_t low, uint32_t high) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ low, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ high, static_cast<uint32_t>(a)};
    low += 0x9E3779B9;
    high += 0xBB67AE85;
  }
  return counter;
}

// Published with Random123 (kat_vectors), and one that a race draws.
void check_known_answers() {
  EXPECT((philox({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT((philox({6, 7, 3, 100}, 0x89abcdef, 0x01234567) ==
          Words{0x7addad01, 0xc75d8c08, 0xbb19191a, 0x99149a91}));
}

double minus_log_of(const Case& c, int64_t row, int64_t token) {
  const auto seed = static_cast<uint64_t>(c.draw.seed);
  const Words words =
      philox({static_cast<uint32_t>(c.position + row + 1), static_cast<uint32_t>(c.draw.sequence),
              3u, static_cast<uint32_t>(token)},
             static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint64_t number = uint64_t{words[0] >> 5} << 26 | words[1] >> 6 | 1;
  return -std::log(static_cast<double>(number) * 0x1p-53);
}

// Which of the scaled logits `x`, by the words of the header.
std::vector<bool> kept(const std::vector<double>& x, const Draw& d) {
  std::vector<double> order = x;
  std::sort(order.rbegin(), order.rend());
  const auto all = static_cast<int64_t>(x.size());
  const double least = order[(d.top_k > 0 ? std::min<int64_t>(d.top_k, all) : all) - 1];
  double total = 0.0, in_front = 0.0, smallest = order[0];
  for (const double v : order) total += v >= least ? std::exp(v) : 0.0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || order[i] != order[i - 1]) {
      if (i > 0 && !(in_front < d.top_p * total) && d.top_p < 1.0) break;
      smallest = order[i];
    }
    in_front += std::exp(order[i]);
  }
  std::vector<bool> out;
  for (const double v : x) out.push_back(v >= least && v >= smallest && std::exp(v) >= d.min_p);
  return out;
}

// A share may be off by its own rounding and by what the order of a sum in double changes.
void check(const Case& c, int64_t k) {
  const Drawn out = drawn(c, k);
  const int64_t width = c.logits.size() / c.rows;
  for (int64_t row = 0; row < c.rows; ++row) {
    std::vector<double> x, scores;
    for (int64_t i = 0; i < width; ++i) x.push_back(c.logits.at(row * width + i));
    const double largest = *std::max_element(x.begin(), x.end());
    const bool greedy = c.draw.temperature == 0.0;
    for (double& v : x) v = (v - largest) / (greedy ? 1.0 : c.draw.temperature);
    const std::vector<bool> in = kept(x, c.draw);
    double total = 0.0;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t token = c.ids.empty() ? i : c.ids[i];
      const double score = greedy ? x[i] : x[i] - std::log(minus_log_of(c, row, token));
      scores.push_back(greedy || in[i] ? score : -HUGE_VAL);
      total += std::exp(scores.back());
    }
    std::vector<int64_t> order(static_cast<std::size_t>(width));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    for (int64_t j = 0; j < k; ++j) {
      const int64_t token = c.ids.empty() ? order[j] : c.ids[order[j]];
      const double share = std::exp(scores[order[j]]) / total;
      EXPECT(out.tokens[row * k + j] == token);
      EXPECT(std::fabs(out.shares[row * k + j] - share) <= share * 0x1p-23 + 1e-45);
    }
  }
}

const Draw kPlain = {1.0, 0, 1.0, 0.0, INT64_MIN + 9, 3};

std::vector<Draw> draws() {
  const auto with = [](double temperature, int32_t top_k, double top_p, double min_p) {
    return Draw{temperature, top_k, top_p, min_p, kPlain.seed, UINT32_MAX};
  };
  return {kPlain,
          with(0.0, 2, 0.1, 0.9),
          with(0.01, 0, 1.0, 0.0),
          with(1e-3, 0, 1.0, 0.0),  // most weights are 0, their scores are not
          with(50.0, 0, 1.0, 0.0),
          with(1.0, 1, 1.0, 0.0),
          with(1.0, 5, 1.0, 0.0),
          with(1.0, 300, 1.0, 0.0),
          with(1.0, INT32_MAX, 1.0, 0.0),
          with(1.0, 0, 0.0, 0.0),
          with(0.8, 0, 0.7, 0.0),
          with(50.0, 0, 0.5, 0.0),  // the nucleus ends among hundreds on one shelf
          with(1.0, 0, 1.0, 0.2),
          with(1.0, 0, 1.0, 1.0),
          with(1.3, 90, 0.9, 0.01)};
}

void check_all() {
  for (const Draw& draw : draws()) {
    for (const int64_t width : {1, 15, 40, 257, 3000}) {
      Case c = {testing::noise(KANGAROO_FLOAT32, 3 * width, 5, 3.0f), 3, draw, 41};
      for (int64_t tied = 7; tied < width; tied += 5) c.logits.set(tied, c.logits.at(tied - 7));
      for (const int64_t k : {1, 3, 16}) {
        if (k <= width) check(c, k);
      }
      for (int32_t id = 0; id < width; ++id) c.ids.push_back(INT32_MAX - 3 * (3000 - id));
      check(c, std::min<int64_t>(width, 4));
    }
  }
}

// All weigh nearly the same, so that the nucleus ends once behind each token, or each group of
// equals.
void check_nuclei() {
  constexpr int64_t kWidth = 613;
  for (const bool tied : {false, true}) {
    Case c = {testing::noise(KANGAROO_FLOAT32, kWidth, 9), 1, kPlain};
    c.draw.temperature = 1e6;
    for (int64_t i = 0; tied && i < kWidth; ++i) {
      c.logits.set(i, std::round(64.0f * c.logits.at(i)) / 64.0f);
    }
    for (int64_t j = 0; j < kWidth; ++j) {
      c.draw.top_p = (static_cast<double>(j) + 0.5) / kWidth;
      check(c, 1);
    }
  }
}

// Weights that are too small for a double, of tokens whose times make good for it.
void check_far_tokens() {
  Case c = {Tensor(KANGAROO_FLOAT32, 10 * 3000, -709.0f), 10, kPlain};
  for (int64_t row = 0; row < c.rows; ++row) {
    c.logits.set(row * 3000, 0.0f);
    c.logits.set(row * 3000 + 1, -702.0f);
  }
  check(c, 2);
}

// Few units of 2^-53 from the C library's exp and log, which half an ulp or more is.
void check_kernels() {
  const kangaroo::Kernels& k = kangaroo::kernels();
  const Case c = {Tensor(KANGAROO_FLOAT32, 1), 1, kPlain, 41};
  const kangaroo::RaceKey key = {{42, 3, 3}, static_cast<uint64_t>(kPlain.seed)};
  uint64_t tokens[kangaroo::kRunners];
  float logits[kangaroo::kRunners];
  double values[kangaroo::kRunners];
  for (uint64_t first = 0; first < 200000; first += kangaroo::kRunners) {
    std::iota(tokens, tokens + kangaroo::kRunners, first);
    k.start_times(key, tokens, kangaroo::kRunners, values);
    for (int64_t i = 0; i < kangaroo::kRunners; ++i) {
      const double exact = minus_log_of(c, 0, static_cast<int64_t>(tokens[i]));
      EXPECT(std::fabs(values[i] - exact) <= 8 * 0x1p-53 * exact);
    }
  }
  for (int64_t first = 0; first < 70800; first += kangaroo::kRunners) {
    for (int64_t i = 0; i < kangaroo::kRunners; ++i) {
      logits[i] = -0.01f * static_cast<float>(std::min<int64_t>(first + i, 70800));
    }
    k.weigh(logits, kangaroo::kRunners, 0.0, 1.0, values);
    for (int64_t i = 0; i < kangaroo::kRunners; ++i) {
      const double exact = std::exp(double{logits[i]});
      EXPECT(std::fabs(values[i] - exact) <= 4 * 0x1p-53 * exact);
    }
  }
  const float ends[3] = {5.0f, -703.5f, -INFINITY};
  k.weigh(ends, 3, 5.0, 1.0, values);
  EXPECT(values[0] == 1.0 && values[1] == 0.0 && values[2] == 0.0);
}

void check_rows_alone() {
  for (const Draw& draw : draws()) {
    const Case c = {testing::noise(KANGAROO_FLOAT32, 9 * 1000, 6, 3.0f), 9, draw, 17};
    const Drawn out = drawn(c, 2);
    EXPECT(out == drawn(c, 2, 3));
    for (int64_t row = 0; row < c.rows; ++row) {
      const Case one = {c.logits.slice(row * 1000, 1000), 1, draw,
                        static_cast<int32_t>(c.position + row)};
      const Drawn alone = drawn(one, 2, 2);
      EXPECT(std::equal(alone.tokens.begin(), alone.tokens.end(), out.tokens.begin() + row * 2));
      EXPECT(std::equal(alone.shares.begin(), alone.shares.end(), out.shares.begin() + row * 2));
    }
  }
}

void check_ties() {
  Case c = {Tensor(KANGAROO_FLOAT32, 7, 0.0f), 1, {}};
  for (const int64_t column : {2, 4, 6}) c.logits.set(column, 1.0f);
  c.logits.set(5, -INFINITY);
  const std::vector<int64_t> order = {2, 4, 6, 0, 1, 3, 5};
  EXPECT(drawn(c, 7).tokens == order);
  c.draw = kPlain;
  c.draw.top_k = 2;
  Drawn out = drawn(c, 7);
  std::sort(out.tokens.begin(), out.tokens.begin() + 3);
  EXPECT(out.tokens == order);
  EXPECT(std::count(out.shares.begin(), out.shares.end(), 0.0f) == 4);
}

void check_no_token() {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const double temperature : {0.0, 1.0}) {
      Case c = {testing::noise(KANGAROO_FLOAT32, 80, 7), 2, {temperature, 3, 0.9}};
      for (int64_t column = bad == -INFINITY ? 0 : 33; column < 40; ++column) {
        c.logits.set(column, bad);
      }
      const Drawn out = drawn(c, 2);
      EXPECT(out.tokens[0] == -1 && out.tokens[1] == -1 && out.tokens[2] >= 0);
      EXPECT(out.shares[0] == 0.0f && out.shares[1] == 0.0f && out.shares[2] > 0.0f);
    }
  }
}

// Greedy: the second token with a share of 1 / (1 + 2 / e) = 0.576, in chains of two rows; no token
// in the last.
void check_chain() {
  Tensor logits(KANGAROO_FLOAT32, 3 * 2 * 3, 0.0f);
  for (const int64_t b : {0, 1}) logits.set((2 * b + 1) * 3 + 1, 1.0f);
  logits.set(5 * 3 + 2, NAN);
  int64_t tokens[6], chained[9] = {5, -1, -1, 6, -1, -1, 7, -1, -1};
  float shares[6];
  int32_t at[9] = {40, -1, -1, 70, -1, -1, 0, -1, -1};
  int32_t num_nodes[3] = {1, 1, 1}, stopped[3] = {0, 0, 0}, positions[6] = {}, top_k[3] = {};
  const float threshold[3] = {0.5f, 0.6f, 0.0f};
  const double zeros[3] = {};
  const int64_t seeds[3] = {};
  const kangaroo_draft_chain chain = {chained, at, num_nodes, stopped, threshold, 3, 3};
  kangaroo_draw_tokens_params p = {};
  p.logits = states_of(logits, 3, 2);
  p.draws = {zeros, top_k, zeros, zeros, seeds, seeds};
  p.positions = positions;
  p.tokens = tokens;
  p.shares = shares;
  p.k = 1;
  p.chain = &chain;
  p.num_threads = 1;
  EXPECT(kangaroo_draw_tokens(&p) == KANGAROO_OK);
  const int64_t expected[9] = {5, 1, -1, 6, 1, -1, 7, 0, -1};
  EXPECT(std::memcmp(chained, expected, sizeof expected) == 0);
  EXPECT(stopped[0] == 0 && stopped[1] == 1 && stopped[2] == 0);
  EXPECT(at[1] == 41 && at[4] == 71 && at[7] == 1);
  EXPECT(num_nodes[0] == 2 && num_nodes[1] == 2 && num_nodes[2] == 2);
  p.logits.nodes = 0;
  EXPECT(kangaroo_draw_tokens(&p) == KANGAROO_INVALID_ARGUMENT);
}

void check_refusals() {
  const Case good = {testing::noise(KANGAROO_FLOAT32, 40, 8), 1, kPlain};
  for (double Draw::* place : {&Draw::temperature, &Draw::top_p, &Draw::min_p}) {
    Case c = good;
    c.draw.*place = NAN;
    Drawn out;
    EXPECT(run(c, 1, 1, out) == KANGAROO_INVALID_ARGUMENT);
    EXPECT(out.tokens[0] == -7);
  }
  Drawn out;
  for (const int64_t k : {-1, 0, 17}) EXPECT(run(good, k, 1, out) == KANGAROO_INVALID_ARGUMENT);
  const Case few = {testing::noise(KANGAROO_FLOAT32, 4, 8), 1, kPlain};
  EXPECT(run(few, 5, 1, out) == KANGAROO_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  check_known_answers();
  testing::for_each_isa([] {
    check_kernels();
    check_all();
    check_nuclei();
    check_far_tokens();
    check_rows_alone();
    check_ties();
    check_no_token();
    check_chain();
    check_refusals();
  });
  return testing::result();
}
