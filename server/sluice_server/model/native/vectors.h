// Sixteen floats at a time, in GCC's portable vectors: one AVX-512 register, or two of AVX2.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

namespace sluice {

constexpr int kLanes = 16;

inline int64_t whole_vectors(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// bfloat16: the upper half of a float.
struct Brain {
  uint16_t bits;
};

typedef float Floats __attribute__((vector_size(64), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(64), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2)));

inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }

inline Bits load_bits(const Brain* from) {
  return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Bits);
}

inline Floats load(const Brain* from) {
  return reinterpret_cast<Floats>(load_bits(from) << 16);
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

inline float largest(Floats values) {
  values = larger(values, across<8>(values));
  values = larger(values, across<4>(values));
  values = larger(values, across<2>(values));
  return larger(values, across<1>(values))[0];
}

inline float sum(Floats values) {
  values += across<8>(values);
  values += across<4>(values);
  values += across<2>(values);
  return (values + across<1>(values))[0];
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

// One of the four steps of a 16 x 16 transposition: exchanges the off-diagonal blocks of width W.
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

inline void transpose(Floats* rows) {
  exchange<8>(rows);
  exchange<4>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
}

}  // namespace sluice
