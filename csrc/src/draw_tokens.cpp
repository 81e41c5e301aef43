#include "kangaroo/draw_tokens.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "draft_head.h"
#include "parallel.h"
#include "scratch.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_draw_tokens_params;

constexpr float kInfinity = __builtin_inff();
constexpr uint32_t kRace = 3;         // word of the counter of all numbers of races
constexpr int64_t kWorkOfLogit = 20;  // in multiply-adds
constexpr int64_t kShelves = 512;     // of logits by their distance from the largest
constexpr double kShelvesPerUnit = 8.0;

int64_t num_rows(const Params& p) { return p.logits.batch * p.logits.nodes; }

// One row of logits, and what its sequence asks for.
struct Row {
  const float* logits;
  int64_t width;
  const int32_t* token_ids;
  double largest;
  double temperature;
  int64_t top_k;
  double top_p;
  double min_p;
  RaceKey key;

  Row(const Params& p, int64_t row, int64_t best)
      : logits(reinterpret_cast<const float*>(rows_of(p.logits).at(row))),
        width(p.logits.width),
        token_ids(p.token_ids),
        largest(logits[best]) {
    const int64_t b = row / p.logits.nodes;
    temperature = p.draws.temperature[b];
    top_k = p.draws.top_k[b];
    top_p = p.draws.top_p[b];
    min_p = p.draws.min_p[b];
    const auto position = static_cast<uint32_t>(p.positions[row]) + 1;
    key = {{position, static_cast<uint32_t>(p.draws.sequence[b]), kRace},
           static_cast<uint64_t>(p.draws.seed[b])};
  }

  bool greedy() const { return temperature == 0.0; }
  int64_t token(int64_t column) const { return token_ids ? token_ids[column] : column; }
  double scaled(float logit) const {
    return (double{logit} - largest) / (greedy() ? 1.0 : temperature);
  }
  void weigh(const float* some, int64_t count, double* weights) const {
    kernels().weigh(some, count, largest, greedy() ? 1.0 : temperature, weights);
  }
  // The further below the largest, the higher.
  int64_t shelf(float logit) const {
    return static_cast<int64_t>(
        std::min(-scaled(logit) * kShelvesPerUnit, static_cast<double>(kShelves - 1)));
  }
};

// Logits on their way to whoever takes kRunners of them at a time, with their columns.
struct Runners {
  float logits[kRunners];
  uint64_t columns[kRunners] = {};  // whole vectors are read
  int64_t count = 0;
};

// take(runners) over all logits of at least `least`, in their order.
template <class Take>
void each_kept(const Row& row, float least, const Take& take) {
  Runners runners;
  for (int64_t column = 0; column < row.width; ++column) {
    const float logit = row.logits[column];
    runners.logits[runners.count] = logit;
    runners.columns[runners.count] = static_cast<uint64_t>(column);
    runners.count += logit >= least;
    if (runners.count < kRunners) continue;
    take(runners);
    runners.count = 0;
  }
  if (runners.count > 0) take(runners);
}

// The k-th largest logit: of those above the k-th of what was looked at, the k best are kept,
// whenever there are twice as many.
float kth_largest(const Row& row, int64_t k) {
  const int64_t room = std::min(row.width, 2 * k);
  float* const kept = scratch<float>(Scratch::kTile, room, 1);
  int64_t count = 0;
  float least = -kInfinity;
  const auto halve = [&] {
    std::nth_element(kept, kept + k - 1, kept + count, std::greater<float>());
    least = kept[k - 1];
    count = k;
  };
  for (int64_t column = 0; column < row.width; ++column) {
    if (!(row.logits[column] > least)) continue;
    if (count == room) halve();
    kept[count++] = row.logits[column];
  }
  if (count >= k) halve();
  return least;
}

// The least of `count` logits in front of which less than `wanted` is, or the largest of them.
float end_of_nucleus(const Row& row, float* logits, int64_t count, double wanted) {
  double weights[kRunners];
  while (count > kRunners) {  // the half in which it ends
    const int64_t half = count / 2;
    std::nth_element(logits, logits + half, logits + count, std::greater<float>());
    double mass = 0.0;
    for (int64_t i = 0; i < half; i += kRunners) {
      const int64_t some = std::min(kRunners, half - i);
      row.weigh(logits + i, some, weights);
      for (int64_t j = 0; j < some; ++j) mass += weights[j];
    }
    const bool behind = mass < wanted;
    if (behind) wanted -= mass;
    if (behind) logits += half;
    count = behind ? count - half : half;
  }
  std::sort(logits, logits + count, std::greater<float>());
  row.weigh(logits, count, weights);
  int64_t end = 1;
  double in_front = weights[0];
  while (end < count && in_front < wanted) in_front += weights[end++];
  return logits[end - 1];  // its equals are kept with it
}

// The least logit of the nucleus of those of at least `least`: masses by shelves, and the shelf on
// which the nucleus ends in order.
float least_of_nucleus(const Row& row, float least) {
  double masses[kShelves] = {};
  double weights[kRunners];
  each_kept(row, least, [&](const Runners& runners) {
    row.weigh(runners.logits, runners.count, weights);
    for (int64_t i = 0; i < runners.count; ++i) masses[row.shelf(runners.logits[i])] += weights[i];
  });
  double total = 0.0;
  for (const double mass : masses) total += mass;
  const double wanted = row.top_p * total;
  double in_front = 0.0;
  int64_t last = 0;  // all shelves together have the total
  while (in_front + masses[last] < wanted) in_front += masses[last++];
  float* const shelf = scratch<float>(Scratch::kTile, row.width, 1);
  int64_t count = 0;
  each_kept(row, least, [&](const Runners& runners) {
    for (int64_t i = 0; i < runners.count; ++i) {
      if (row.shelf(runners.logits[i]) == last) shelf[count++] = runners.logits[i];
    }
  });
  return end_of_nucleus(row, shelf, count, wanted - in_front);
}

// What top_k and top_p keep: logits of at least this.
float least_kept(const Row& row) {
  float least = -kInfinity;
  if (row.greedy()) return least;
  if (row.top_k > 0 && row.top_k < row.width) least = kth_largest(row, row.top_k);
  return row.top_p < 1.0 ? least_of_nucleus(row, least) : least;
}

// The k best so far; the earlier of two equals stands first.
class Podium {
 public:
  explicit Podium(int64_t k) : k_(k) { std::fill_n(scores_, k, -HUGE_VAL); }

  // What weighs less in proportion to its time cannot stand here. A weight has lost bits where a
  // score is below -708, less 37 at most for its time.
  double bar() const { return bar_; }
  int64_t column(int64_t rank) const { return columns_[rank]; }
  double ratio(int64_t rank) const { return ratios_[rank]; }

  void insert(double score, double ratio, int64_t column) {
    if (!(score > scores_[k_ - 1])) return;
    count_ = std::min(count_ + 1, k_);
    int64_t at = count_ - 1;
    for (; at > 0 && score > scores_[at - 1]; --at) {
      scores_[at] = scores_[at - 1];
      ratios_[at] = ratios_[at - 1];
      columns_[at] = columns_[at - 1];
    }
    scores_[at] = score;
    ratios_[at] = ratio;
    columns_[at] = column;
    const double last = scores_[k_ - 1];
    bar_ = last > -600.0 ? std::exp(last) * (1.0 - 1e-9) : 0.0;
  }
  // Columns without a score, the lowest first, on what places are left.
  void fill() {
    for (int64_t column = 0, scored = count_; count_ < k_; ++column) {
      if (std::find(columns_, columns_ + scored, column) != columns_ + scored) continue;
      ratios_[count_] = 0.0;
      columns_[count_++] = column;
    }
  }

 private:
  int64_t k_;
  int64_t count_ = 0;
  double bar_ = 0.0;
  double scores_[KANGAROO_MAX_K];
  double ratios_[KANGAROO_MAX_K] = {};  // exp(score)
  int64_t columns_[KANGAROO_MAX_K] = {};
};

// Who is first in the race of exponential times, each at a speed of its weight; the speed's
// logarithm less that of the time is the score. Returns the sum of exp(score).
double race(const Row& row, float least, Podium& podium) {
  constexpr int64_t kSums = 8;
  double total = 0.0;
  double weights[kRunners], times[kRunners], ratios[kRunners];
  uint64_t tokens[kRunners];
  std::fill_n(times, kRunners, 1.0);
  each_kept(row, least, [&](const Runners& runners) {
    row.weigh(runners.logits, runners.count, weights);
    std::fill(weights + runners.count, weights + kRunners, 0.0);
    if (!row.greedy()) {
      for (int64_t i = 0; i < kRunners; ++i) {
        tokens[i] = static_cast<uint64_t>(row.token(static_cast<int64_t>(runners.columns[i])));
      }
      kernels().start_times(row.key, tokens, runners.count, times);
      for (int64_t i = 0; i < kRunners; ++i) {
        times[i] = weights[i] < row.min_p ? HUGE_VAL : times[i];  // never arrives
      }
    }
    double own[kSums] = {}, fastest[kSums] = {};
    for (int64_t i = 0; i < kRunners; i += kSums) {
      for (int64_t j = 0; j < kSums; ++j) {
        const double ratio = weights[i + j] / times[i + j];
        ratios[i + j] = ratio;
        own[j] += ratio;
        fastest[j] = ratio > fastest[j] ? ratio : fastest[j];
      }
    }
    for (const double sum : own) total += sum;
    if (*std::max_element(fastest, fastest + kSums) < podium.bar()) return;
    for (int64_t i = 0; i < runners.count; ++i) {
      if (ratios[i] < podium.bar()) continue;
      const double score = row.scaled(runners.logits[i]) - std::log(times[i]);
      podium.insert(score, ratios[i], static_cast<int64_t>(runners.columns[i]));
    }
  });
  return total;
}

void draw(const Params& p, int64_t index) {
  int64_t* const tokens = p.tokens + index * p.k;
  float* const shares = p.shares + index * p.k;
  const void* logits = rows_of(p.logits).at(index);
  const int64_t best = kernels(KANGAROO_FLOAT32).argmax(logits, p.logits.width);
  if (best < 0) {
    std::fill_n(tokens, p.k, -1);
    std::fill_n(shares, p.k, 0.0f);
    return;
  }
  const Row row(p, index, best);
  Podium podium(p.k);
  const double total = race(row, least_kept(row), podium);
  podium.fill();
  for (int64_t rank = 0; rank < p.k; ++rank) {
    tokens[rank] = row.token(podium.column(rank));
    shares[rank] = static_cast<float>(podium.ratio(rank) / total);
  }
}

void check_draws(Check& c, const Params& p) {
  const int64_t batch = p.logits.batch;
  const kangaroo_draws& d = p.draws;
  c.array("draws.temperature", d.temperature, batch, 1, sizeof(double));
  c.array("draws.top_k", d.top_k, batch, 1, sizeof(int32_t));
  c.array("draws.top_p", d.top_p, batch, 1, sizeof(double));
  c.array("draws.min_p", d.min_p, batch, 1, sizeof(double));
  c.array("draws.seed", d.seed, batch, 1, sizeof(int64_t));
  c.array("draws.sequence", d.sequence, batch, 1, sizeof(int64_t));
  for (int64_t b = 0; c.ok() && b < batch; ++b) {
    c.number("draws.temperature", d.temperature[b], std::numeric_limits<double>::max());
    c.at_least("draws.top_k", d.top_k[b], 0);
    c.number("draws.top_p", d.top_p[b], 1.0);
    c.number("draws.min_p", d.min_p[b], 1.0);
    c.within("draws.sequence", d.sequence[b], 0, UINT32_MAX);
  }
}

void check(Check& c, const Params& p) {
  c.cpu_dtype("logits", p.logits.dtype);
  c.dtype("logits", p.logits.dtype, KANGAROO_FLOAT32);
  c.states("logits", p.logits);
  c.within("logits.width", p.logits.width, 1, INT32_MAX);
  if (!c.ok()) return;
  c.within("k", p.k, 1, std::min<int64_t>(KANGAROO_MAX_K, p.logits.width));
  c.array("positions", p.positions, p.logits.batch, p.logits.nodes, sizeof(int32_t));
  if (p.token_ids) c.array("token_ids", p.token_ids, p.logits.width, 1, sizeof(int32_t));
  if (!c.ok()) return;
  c.array("tokens", p.tokens, num_rows(p), p.k, sizeof(int64_t));
  c.array("shares", p.shares, num_rows(p), p.k, sizeof(float));
  check_chain(c, p.chain, "logits.nodes", p.logits);
  c.threads(p.num_threads);
  check_draws(c, p);
  for (int64_t row = 0; c.ok() && row < num_rows(p); ++row) {
    c.within("positions", p.positions[row], 0, INT32_MAX - 1);
  }
  if (p.token_ids) c.increasing("token_ids", p.token_ids, p.logits.width, INT32_MAX);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_draw_tokens(const kangaroo_draw_tokens_params* params) {
  using namespace kangaroo;
  return entry("draw_tokens", params, [](const Params& p) {
    Check c("draw_tokens");
    check(c, p);
    if (!c.ok()) return c.status();
    const int64_t grain = grain_for(num_rows(p), p.logits.width * kWorkOfLogit, 1, p.num_threads);
    parallel_for(num_rows(p), grain, p.num_threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) draw(p, row);
    });
    const int64_t apart = p.logits.nodes * p.k, last = apart - p.k;
    if (p.chain && num_rows(p) > 0) append(*p.chain, p.tokens + last, p.shares + last, apart);
    return KANGAROO_OK;
  });
}
