#include "isa/rows.h"

#include "isa/norm.h"

namespace kangaroo::KANGAROO_ISA {

template <class T>
void rms_norm(const void* x, const void* weight, float eps, int64_t width, void* out) {
  const auto* from = static_cast<const T*>(x);
  const float inverse = inverse_rms(from, eps, width);
  each_step(width, [&](int64_t at, int64_t lanes) {
    const auto* w = static_cast<const T*>(weight) + at;
    store_lanes(static_cast<T*>(out) + at, normed(load_lanes(from + at, lanes), inverse, w, lanes),
                lanes);
  });
}

template <class T>
void rotate(const void* x, const float* cos, const float* sin, int64_t half, void* out) {
  const auto* from = static_cast<const T*>(x);
  auto* to = static_cast<T*>(out);
  each_step(half, [&](int64_t at, int64_t lanes) {
    const Floats a = load_lanes(from + at, lanes);
    const Floats b = load_lanes(from + half + at, lanes);
    const Floats c = load_lanes(cos + at, lanes);
    const Floats s = load_lanes(sin + at, lanes);
    store_lanes(to + at, a * c - b * s, lanes);
    store_lanes(to + half + at, b * c + a * s, lanes);
  });
}

template <class T>
void silu_mul(const float* gate, const float* up, int64_t count, void* out) {
  each_step(count, [&](int64_t at, int64_t lanes) {
    const Floats g = load_lanes(gate + at, lanes);
    const Floats silu = g / (broadcast(1.0f) + exp(-g));
    store_lanes(static_cast<T*>(out) + at, silu * load_lanes(up + at, lanes), lanes);
  });
}

// By integers in the order of the floats that they are the bits of; -0 is 0.
template <class T>
int64_t argmax(const void* values, int64_t count) {
  Ints best = broadcast(INT32_MIN);
  Ints places = {};
  each_step(count, [&](int64_t at, int64_t lanes) {
    const Floats v = load_lanes(static_cast<const T*>(values) + at, lanes) + broadcast(0.0f);
    const Ints bits = reinterpret_cast<Ints>(v);
    Ints keys = bits ^ ((bits >> 31) & INT32_MAX);
    keys = v == v ? keys : broadcast(INT32_MAX);
    keys = lane_numbers() < broadcast(static_cast<int32_t>(lanes)) ? keys : broadcast(INT32_MIN);
    const Ints here = lane_numbers() + broadcast(static_cast<int32_t>(at));
    places = keys > best ? here : places;
    best = keys > best ? keys : best;
  });
  int32_t largest = best[0];
  int32_t place = places[0];
  for (int lane = 1; lane < kLanes; ++lane) {
    const bool earlier = best[lane] == largest && places[lane] < place;
    if (best[lane] > largest || earlier) {
      largest = best[lane];
      place = places[lane];
    }
  }
  constexpr int32_t kInfinity = 0x7f800000;
  return largest < kInfinity && largest > ~kInfinity ? place : -1;
}

SoftmaxPart softmax_part(const float* logits, int64_t count) {
  const Floats lowest = broadcast(-__builtin_inff());
  Floats best = lowest;
  Ints places = {};
  each_step(count, [&](int64_t at, int64_t lanes) {
    const Floats v = keep_first(load_lanes(logits + at, lanes), lanes, lowest);
    const Ints here = lane_numbers() + broadcast(static_cast<int32_t>(at));
    places = v > best ? here : places;
    best = max(v, best);
  });
  SoftmaxPart part = {max_lane(best), 0.0f, count};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (best[lane] == part.largest && places[lane] < part.place) part.place = places[lane];
  }
  const Floats largest = broadcast(part.largest);
  Floats sums = {};
  each_step(count, [&](int64_t at, int64_t lanes) {
    sums = sums + exp(keep_first(load_lanes(logits + at, lanes) - largest, lanes, lowest));
  });
  part.sum = sum(sums);
  return part;
}

float exp_one(float x) { return exp(broadcast(x))[0]; }

template void rms_norm<float>(const void*, const void*, float, int64_t, void*);
template void rms_norm<Bf16>(const void*, const void*, float, int64_t, void*);
template void rotate<float>(const void*, const float*, const float*, int64_t, void*);
template void rotate<Bf16>(const void*, const float*, const float*, int64_t, void*);
template void silu_mul<float>(const float*, const float*, int64_t, void*);
template void silu_mul<Bf16>(const float*, const float*, int64_t, void*);
template int64_t argmax<float>(const void*, int64_t);
template int64_t argmax<Bf16>(const void*, int64_t);

}  // namespace kangaroo::KANGAROO_ISA
