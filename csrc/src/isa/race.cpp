// Plain loops, which compilers make vectors of: their widths differ, the bits of a value do not.
#include "isa/race.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

// ln(2) = kLn2High + kLn2Low; so few bits in the first that its product with an exponent is exact.
constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
constexpr uint64_t kOne = uint64_t{1} << 52;  // 1 in a double's exponent

KANGAROO_INLINE double fma(double a, double b, double c) {
#ifdef __FP_FAST_FMA
  return __builtin_fma(a, b, c);
#else
  return a * b + c;  // never contracted: -ffp-contract=off
#endif
}

KANGAROO_INLINE uint64_t bits_of(double value) {
  uint64_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

KANGAROO_INLINE double double_of(uint64_t bits) {
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x for x <= 0 within 2 ulp: 2^n e^r with |r| <= ln(2) / 2, of which Taylor's series is taken to
// r^13 / 13!. Exact at 0; 0 below -708, where a double loses its bits.
KANGAROO_INLINE double exp_double(double x) {
  const double magic = 0x1.8p52;  // adding it rounds to an integer, which its last bits then hold
  const double near = x < -708.0 ? -708.0 : x;
  const double shifted = fma(near, 0x1.71547652b82fep0, magic);
  const double n = shifted - magic;
  const double r = fma(n, -kLn2Low, fma(n, -kLn2High, near));
  double p = 1.0 / 6227020800.0;
  p = fma(p, r, 1.0 / 479001600.0);
  p = fma(p, r, 1.0 / 39916800.0);
  p = fma(p, r, 1.0 / 3628800.0);
  p = fma(p, r, 1.0 / 362880.0);
  p = fma(p, r, 1.0 / 40320.0);
  p = fma(p, r, 1.0 / 5040.0);
  p = fma(p, r, 1.0 / 720.0);
  p = fma(p, r, 1.0 / 120.0);
  p = fma(p, r, 1.0 / 24.0);
  p = fma(p, r, 1.0 / 6.0);
  p = fma(p, r, 0.5);
  p = fma(p, r * r, r) + 1.0;
  const double power = double_of((bits_of(shifted) << 52) + 1023 * kOne);
  return x < -708.0 ? 0.0 : p * power;
}

// -log u for u in [2^-53, 1) within 4 ulp: u = 2^n f with f from sqrt(1/2) to sqrt(2), and
// log f = 2 (s + s^3 / 3 + ...) with s = (f - 1) / (f + 1), |s| < 0.172, to s^21 / 21.
KANGAROO_INLINE double minus_log(double u) {
  const uint64_t bits = bits_of(u);
  const uint64_t above = bits - bits_of(0x1.6a09e667f3bcdp-1) + 1024 * kOne;
  const double n = double_of(above >> 52 | bits_of(0x1p52)) - (0x1p52 + 1024.0);
  const double f = double_of(bits - (above & ~(kOne - 1)) + 1024 * kOne);
  const double s = (f - 1.0) / (f + 1.0);
  const double z = s * s;
  double p = 1.0 / 21.0;
  p = fma(p, z, 1.0 / 19.0);
  p = fma(p, z, 1.0 / 17.0);
  p = fma(p, z, 1.0 / 15.0);
  p = fma(p, z, 1.0 / 13.0);
  p = fma(p, z, 1.0 / 11.0);
  p = fma(p, z, 1.0 / 9.0);
  p = fma(p, z, 1.0 / 7.0);
  p = fma(p, z, 1.0 / 5.0);
  p = fma(p, z, 1.0 / 3.0);
  const double twice = s + s;
  return -fma(n, kLn2High, twice + fma(n, kLn2Low, twice * (z * p)));
}

// Words of 32 bits, one in each lane of 64; nothing reads what the upper halves hold.
#if defined(__AVX512F__)
typedef uint64_t Words __attribute__((vector_size(64)));
KANGAROO_INLINE Words product(Words a, uint32_t b) {
  return reinterpret_cast<Words>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(Words{} + b)));
}
#elif defined(__AVX2__)
typedef uint64_t Words __attribute__((vector_size(32)));
KANGAROO_INLINE Words product(Words a, uint32_t b) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(Words{} + b)));
}
#else
typedef uint64_t Words;
KANGAROO_INLINE Words product(Words a, uint32_t b) { return (a & 0xffffffff) * b; }
#endif
constexpr int64_t kWords = sizeof(Words) / sizeof(uint64_t);
static_assert(kRunners % kWords == 0);

// The first 53 bits of Philox 4x32-10, the last of them set.
KANGAROO_INLINE Words philox(const RaceKey& key, Words tokens) {
  Words c0 = Words{} + key.counter[0], c1 = Words{} + key.counter[1];
  Words c2 = Words{} + key.counter[2], c3 = tokens;
  auto k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Words a = product(c0, 0xD2511F53), b = product(c2, 0xCD9E8D57);
    c0 = (b >> 32) ^ c1 ^ k0;
    c1 = b;
    c2 = (a >> 32) ^ c3 ^ k1;
    c3 = a;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return ((c0 & 0xffffffff) >> 5) << 26 | ((c1 & 0xffffffff) >> 6) | 1;
}

// Of 53 bits, as a part of 2^53.
KANGAROO_INLINE double fraction(uint64_t number) {
  const double high = double_of(number >> 26 | bits_of(0x1p52)) - 0x1p52;
  const double low = double_of((number & 0x3ffffff) | bits_of(0x1p52)) - 0x1p52;
  return high * 0x1p-27 + low * 0x1p-53;
}

}  // namespace

void weigh(const float* logits, int64_t count, double largest, double temperature,
           double* weights) {
  for (int64_t i = 0; i < count; ++i) {
    weights[i] = exp_double((double{logits[i]} - largest) / temperature);
  }
}

void start_times(const RaceKey& key, const uint64_t* tokens, int64_t count, double* times) {
  const RaceKey own = key;
  for (int64_t i = 0; i < count; i += kWords) {
    Words words;
    __builtin_memcpy(&words, tokens + i, sizeof words);
    words = philox(own, words);
    __builtin_memcpy(times + i, &words, sizeof words);
  }
  const int64_t end = (count + kWords - 1) / kWords * kWords;
  for (int64_t i = 0; i < end; ++i) times[i] = minus_log(fraction(bits_of(times[i])));
}

}  // namespace kangaroo::KANGAROO_ISA
