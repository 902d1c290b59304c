// GELU: x times the normal distribution function of x.
#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace sluice {

#ifdef __AVX512F__

// The normal distribution function of 0 to kEnd less 1/2, in sixteen pieces, a polynomial each, kept by powers: a lane picks
// its piece's terms by a permutation each. What multiplies is asked for 7 times instead of a single polynomial's 17.
template <int kTerms>
struct Pieces {
  static constexpr float kEnd = kTerms == 5 ? 5.6f : 4.8f;
  alignas(64) Floats terms[kTerms];

  Pieces() {
    for (int piece = 0; piece < kLanes - 1; ++piece) fit(piece);
    // From here on it is 1/2, as a float has it.
    for (int power = 0; power < kTerms; ++power) terms[power][kLanes - 1] = power == 0 ? 0.5f : 0.0f;
  }

 private:
  // Through Chebyshev's points, by Newton's divided differences.
  void fit(int piece) {
    double at[kTerms], differences[kTerms], powers[kTerms] = {};
    for (int i = 0; i < kTerms; ++i) {
      at[i] = 0.5 + 0.5 * std::cos((i + 0.5) * M_PI / kTerms);
      differences[i] = 0.5 * std::erf((piece + at[i]) * kEnd / kLanes * M_SQRT1_2);
    }
    for (int order = 1; order < kTerms; ++order)
      for (int i = kTerms - 1; i >= order; --i)
        differences[i] = (differences[i] - differences[i - 1]) / (at[i] - at[i - order]);
    for (int i = kTerms - 1; i >= 0; --i) {
      for (int power = kTerms - 1; power > 0; --power) powers[power] = powers[power - 1] - at[i] * powers[power];
      powers[0] = differences[i] - at[i] * powers[0];
    }
    for (int power = 0; power < kTerms; ++power) terms[power][piece] = static_cast<float>(powers[power]);
  }
};

template <int kTerms>
inline const Pieces<kTerms> kPieces;

// Its error is 1.4e-7 of x, or of 1 for smaller ones; where a bfloat16 follows, 3.4e-6.
template <typename Kept>
inline Floats gelu(Floats x) {
  constexpr int kTerms = sizeof(Kept) == sizeof(float) ? 5 : 4;
  const Floats* terms = kPieces<kTerms>.terms;
  const Floats size = larger(x, -x);
  const Floats place = smaller(size * (kLanes / Pieces<kTerms>::kEnd), Floats{} + (kLanes - 0.5f));
  const Ints piece = __builtin_convertvector(place, Ints);
  const Floats rest = place - __builtin_convertvector(piece, Floats);
  Floats value = pick(terms[kTerms - 1], piece);
#pragma GCC unroll 4
  for (int power = kTerms - 2; power >= 0; --power) value = value * rest + pick(terms[power], piece);
  return size * value + x * 0.5f;
}

#else

template <int kCount>
inline Floats polynomial(const float (&coefficients)[kCount], Floats x) {
  Floats value = Floats{} + coefficients[kCount - 1];
#pragma GCC unroll 16
  for (int i = kCount - 2; i >= 0; --i) value = value * x + coefficients[i];
  return value;
}

// The distribution function is 1/2 + x P(t), P a minimax polynomial in t = 2 x^2 / c^2 - 1 for |x| up to c. Its error is
// 1.6e-7 of x, or of 1 for smaller ones; where a bfloat16 follows, 1.7e-5.
template <typename Kept>
inline Floats gelu(Floats x);

template <>
inline Floats gelu<float>(Floats x) {
  static constexpr float kTerms[] = {
      0.130928113f, -0.0653280549f, 0.0484995915f, -0.0392068131f, 0.0321165953f,
      -0.0257464571f, 0.0196451439f, -0.0139633204f, 0.00965119666f, -0.0067153379f,
      0.00365892108f, -0.00118641072f, 0.000874934738f, -0.0010283687f, 0.000392858466f};
  constexpr float kEnd = 5.4f;
  const Floats within = smaller(larger(x, Floats{} - kEnd), Floats{} + kEnd);
  return x * (within * polynomial(kTerms, within * within * (2.0f / (kEnd * kEnd)) - 1.0f) + 0.5f);
}

template <>
inline Floats gelu<Brain>(Floats x) {
  static constexpr float kTerms[] = {0.156903092f,   -0.0771418298f, 0.0547557987f,  -0.0409036817f, 0.0281468931f,
                                     -0.0157980541f, 0.0109811959f,  -0.0100326088f, 0.00420333387f};
  constexpr float kEnd = 4.5f;
  const Floats within = smaller(larger(x, Floats{} - kEnd), Floats{} + kEnd);
  return x * (within * polynomial(kTerms, within * within * (2.0f / (kEnd * kEnd)) - 1.0f) + 0.5f);
}

#endif

}  // namespace sluice
