// As many floats at a time as a register holds, in GCC's portable vectors. Not more: what is as large as two it keeps in
// memory, and by 64 bytes of AVX2 all took nine times as long.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

namespace sluice {

// Sizes that a caller chooses are whole multiples of the longest vector on every CPU, and tiles rely on it.
constexpr int kMostLanes = 16;
#if defined(__AVX512F__)
constexpr int kLanes = kMostLanes;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

inline int64_t whole_vectors(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// bfloat16: the upper half of a float.
struct Brain {
  uint16_t bits;
};

typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2)));

inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }

inline Bits load_bits(const Brain* from) {
  return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Bits);
}

inline Floats load(const Brain* from) {
  return reinterpret_cast<Floats>(load_bits(from) << 16);
}

// One value in all lanes.
inline Floats spread(const float* from) {
#ifdef __AVX512F__
  // As 32 bits: these a load spreads, and a float is spread by what adds or multiplies.
  int32_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return reinterpret_cast<Floats>(_mm512_set1_epi32(bits));
#else
  // Less zero, as zero more would be an addition: 0 + -0 is not -0, and so it takes a third of the multiplications' time.
  return *from - Floats{};
#endif
}

inline void store(float* to, Floats values) { *reinterpret_cast<Floats*>(to) = values; }

// Rounds to the nearest, ties to even; scores and weighted means of finite values are finite.
inline void store(Brain* to, Floats values) {
#ifdef __AVX512BF16__
  const __m256bh rounded = _mm512_cvtneps_pbh(values);
  std::memcpy(to, &rounded, sizeof(rounded));
#else
  Bits bits;
  std::memcpy(&bits, &values, sizeof(bits));
  bits += 0x7fff + ((bits >> 16) & 1);
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(bits >> 16, Halves);
#endif
}

// Asks for kCount vectors, into the second cache or into the first, too.
template <int kCount, bool kFirst>
__attribute__((always_inline)) inline void prefetch(const void* from) {
  constexpr int kLine = 64, kLines = (kCount * static_cast<int>(sizeof(Floats)) + kLine - 1) / kLine;
#pragma GCC unroll 16
  for (int line = 0; line < kLines; ++line)
    __builtin_prefetch(static_cast<const char*>(from) + line * kLine, 0, kFirst ? 3 : 2);
}

// Each lane's neighbour at a distance of W, a power of two.
template <int W>
inline Floats across(Floats values) {
  Ints lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane ^ W;
  return __builtin_shuffle(values, lanes);
}

// Where one is not a number, the right.
inline Floats larger(Floats left, Floats right) {
#ifdef __AVX512F__
  return _mm512_max_ps(left, right);
#else
  return left > right ? left : right;
#endif
}

inline Floats smaller(Floats left, Floats right) {
#ifdef __AVX512F__
  return _mm512_min_ps(left, right);
#else
  return left < right ? left : right;
#endif
}

#ifdef __AVX512F__
// Of each lane the value whose index it holds.
inline Floats pick(Floats values, Ints indexes) {
  return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(indexes), values);
}
#endif

template <int W = kLanes / 2>
inline float largest(Floats values) {
  values = larger(values, across<W>(values));
  if constexpr (W > 1) return largest<W / 2>(values);
  return values[0];
}

template <int W = kLanes / 2>
inline float sum(Floats values) {
  values += across<W>(values);
  if constexpr (W > 1) return sum<W / 2>(values);
  return values[0];
}

// 0, 1, 2 ...
inline Ints counted() {
  Ints lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
  return lanes;
}

// 2^x of arguments up to 0. 2^x = 2^k 2^r with |r| <= 1 / 2, and a minimax polynomial for 2^r: to 2e-7, or where a
// bfloat16 follows to 8e-5 by less work. Below -126 it is 2^-126.
template <bool kRough>
inline Floats power(Floats x) {
  x = larger(x, Floats{} - 126.0f);
  // So large that its last bit is a one.
  constexpr float kWhole = 12582912.0f;
  const Floats shifted = x + kWhole, r = x - (shifted - kWhole);
  Floats p;
  if constexpr (kRough) {
    p = r * 5.51716741e-2f + 2.42611125e-1f;
    p = p * r + 6.93260984e-1f;
    p = p * r + 9.99928073e-1f;
  } else {
    p = r * 1.32764728e-3f + 9.67554136e-3f;
    p = p * r + 5.55071327e-2f;
    p = p * r + 2.40221197e-1f;
    p = p * r + 6.93146967e-1f;
    p = p * r + 1.00000007f;
  }
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (reinterpret_cast<Ints>(shifted) << 23));
}

// A step of a transposition of as many rows as lanes: exchanges the off-diagonal blocks of width W.
template <int W>
inline void exchange(Floats* rows) {
  Ints low, high;
  for (int lane = 0; lane < kLanes; ++lane) {
    low[lane] = (lane & W) ? kLanes + (lane ^ W) : lane;
    high[lane] = (lane & W) ? kLanes + lane : (lane ^ W);
  }
  for (int row = 0; row < kLanes; ++row) {
    if (row & W) continue;
    Floats upper = rows[row], lower = rows[row | W];
    rows[row] = __builtin_shuffle(upper, lower, low);
    rows[row | W] = __builtin_shuffle(upper, lower, high);
  }
}

template <int W = kLanes / 2>
inline void transpose(Floats* rows) {
  exchange<W>(rows);
  if constexpr (W > 1) transpose<W / 2>(rows);
}

}  // namespace sluice
