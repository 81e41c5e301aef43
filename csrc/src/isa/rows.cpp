#include "isa/rows.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

// body(offset, lanes) over [0, count) in steps of eight; the last step may have fewer lanes.
template <class Body>
KANGAROO_INLINE void each_step(int64_t count, const Body& body) {
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) body(at, kLanes);
  if (at < count) body(at, count - at);
}

KANGAROO_INLINE F8 load_lanes(const float* from, int64_t lanes) {
  return lanes == kLanes ? load(from) : load_first(from, lanes);
}

KANGAROO_INLINE void store_lanes(float* to, F8 value, int64_t lanes) {
  if (lanes == kLanes) {
    store(to, value);
  } else {
    store_first(to, value, lanes);
  }
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t width, float* out) {
  F8 squares[4] = {};  // four chains hide the latency of one
  int64_t at = 0;
  for (; at + 4 * kLanes <= width; at += 4 * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; ++chain) {
      const F8 v = load(x + at + chain * kLanes);
      squares[chain] = fma(v, v, squares[chain]);
    }
  }
  each_step(width - at, [&](int64_t step, int64_t lanes) {
    const F8 v = load_lanes(x + at + step, lanes);
    squares[0] = fma(v, v, squares[0]);
  });
  const float total = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const F8 inverse = broadcast(1.0f / __builtin_sqrtf(total / static_cast<float>(width) + eps));
  each_step(width, [&](int64_t step, int64_t lanes) {
    const F8 normed = load_lanes(x + step, lanes) * inverse * load_lanes(weight + step, lanes);
    store_lanes(out + step, normed, lanes);
  });
}

void silu_mul(float* gate, const float* up, int64_t count) {
  each_step(count, [&](int64_t at, int64_t lanes) {
    const F8 g = load_lanes(gate + at, lanes);
    const F8 silu = g / (broadcast(1.0f) + exp(-g));
    store_lanes(gate + at, silu * load_lanes(up + at, lanes), lanes);
  });
}

void rotate(const float* x, const float* cos, const float* sin, int64_t half, float* out) {
  each_step(half, [&](int64_t at, int64_t lanes) {
    const F8 a = load_lanes(x + at, lanes);
    const F8 b = load_lanes(x + half + at, lanes);
    const F8 c = load_lanes(cos + at, lanes);
    const F8 s = load_lanes(sin + at, lanes);
    store_lanes(out + at, a * c - b * s, lanes);
    store_lanes(out + half + at, b * c + a * s, lanes);
  });
}

SoftmaxPart softmax_part(const float* logits, int64_t count) {
  const F8 lowest = broadcast(-__builtin_inff());
  F8 best = lowest;
  I8 places = {};
  each_step(count, [&](int64_t at, int64_t lanes) {
    const F8 v = keep_first(load_lanes(logits + at, lanes), lanes, lowest);
    const I8 here = lane_numbers() + broadcast(static_cast<int32_t>(at));
    places = v > best ? here : places;
    best = max(v, best);
  });
  SoftmaxPart part = {max_lane(best), 0.0f, count};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (best[lane] == part.largest && places[lane] < part.place) part.place = places[lane];
  }
  const F8 largest = broadcast(part.largest);
  F8 sums = {};
  each_step(count, [&](int64_t at, int64_t lanes) {
    sums = sums + exp(keep_first(load_lanes(logits + at, lanes) - largest, lanes, lowest));
  });
  part.sum = sum(sums);
  return part;
}

float exp_one(float x) { return exp(broadcast(x))[0]; }

}  // namespace kangaroo::KANGAROO_ISA
