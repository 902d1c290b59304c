// The precisions in which rows are multiplied by weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "vectors.h"

namespace sluice {

// A kind says what is multiplied: `Value`s, in groups of kGroup neighbours along a row, which one instruction takes;
// `Kept` is what activations are kept as between two multiplications.
struct Single {
  using Value = float;
  using Kept = float;
  using Right = Floats;
  using Sums = Floats;
  static constexpr int kGroup = 1;
  static Right load_right(const Value* from) { return load(from); }
  static Right spread(const Value* from) { return sluice::spread(from); }
  static Sums dot(Sums sums, Right left, Right right) { return sums + left * right; }
  static Value from(float value) { return value; }
  static Floats real(Sums sums) { return sums; }
  static void store_groups(Value* to, const Floats (&values)[kGroup]) { store(to, values[0]); }
};

// The same, most of them in pairs (pairs.h).
struct Paired : Single {};

#ifndef SLUICE_PAIRS
// What GCC calls AMD's cores with AVX-512; before its version 13 they are its third Zen's. With AVX2's sixteen registers
// pairs took 1.15 times as long.
#if defined(__AVX512F__) && (defined(__znver3__) || defined(__znver4__) || defined(__znver5__))
#define SLUICE_PAIRS true
#else
#define SLUICE_PAIRS false
#endif
#endif
using Fastest = std::conditional_t<SLUICE_PAIRS, Paired, Single>;

#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
// Groups that fill the four bytes of a lane.
struct FourBytes {
  using Right = __m512i;
  static Right load_right(const void* from) { return _mm512_loadu_si512(from); }
  static Right spread(const void* from) {
    int group;
    std::memcpy(&group, from, sizeof(group));
    return _mm512_set1_epi32(group);
  }
};
#endif

#ifdef __AVX512BF16__
struct Half : FourBytes {
  using Value = Brain;
  using Kept = Brain;
  using Sums = Floats;
  static constexpr int kGroup = 2;
  static Sums dot(Sums sums, Right left, Right right) {
    return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  }
  static Value from(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
  }
  static Floats real(Sums sums) { return sums; }
  static void store_groups(Value* to, const Floats (&values)[kGroup]) {
    typedef uint16_t Words __attribute__((vector_size(64)));
    Words places;
    for (int lane = 0; lane < kLanes; ++lane) places[2 * lane] = lane, places[2 * lane + 1] = kLanes + lane;
    const __m512bh halves = _mm512_cvtne2ps_pbh(values[1], values[0]);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(reinterpret_cast<__m512i>(places), reinterpret_cast<__m512i>(halves)));
  }
};
#endif

#ifdef __AVX512VNNI__
// Rows of bytes from 0 to 255, each row with a scale and a zero of its own, times weights from -127 to 127 with a scale
// for each column.
struct Byte : FourBytes {
  using Value = uint8_t;
#ifdef __AVX512BF16__
  using Kept = Brain;
#else
  using Kept = float;
#endif
  using Sums = Ints;
  static constexpr int kGroup = 4;
  static Sums dot(Sums sums, Right left, Right right) {
    return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), left, right));
  }
  static Value from(float value) { return static_cast<uint8_t>(static_cast<int8_t>(std::lrintf(value))); }
  static Floats real(Sums sums) { return __builtin_convertvector(sums, Floats); }
};
#endif

// What products of rows of such values are computed in.
template <typename T>
struct KindOf {
  using Type = Single;
};
#ifdef __AVX512BF16__
template <>
struct KindOf<Brain> {
  using Type = Half;
};
#endif

}  // namespace sluice
