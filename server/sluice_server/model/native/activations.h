// What layers compute elementwise and along a row, sixteen floats at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace sluice {

// Which function lies between the two linear layers of a block; the numbers are encoder.py's.
enum Activation : int64_t { kGelu = 0, kRelu = 1 };

template <int kCount>
inline Floats polynomial(const float (&coefficients)[kCount], Floats x) {
  Floats value = Floats{} + coefficients[kCount - 1];
#pragma GCC unroll 16
  for (int i = kCount - 2; i >= 0; --i) value = value * x + coefficients[i];
  return value;
}

// x times the normal distribution function of x, which is 1/2 + x P(t), P a minimax polynomial in t = 2 x^2 / c^2 - 1
// for |x| up to c. Its error is 1.4e-7 where a float follows, and 1.7e-5 where a bfloat16 does.
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

template <typename Kept>
inline Floats activated(Activation kind, Floats x) {
  return kind == kGelu ? gelu<Kept>(x) : larger(x, Floats{});
}

// A row as bytes from 0 to 255: value = scale x (byte - zero).
template <typename Kept>
void quantize(const Kept* row, int64_t width, uint8_t* bytes, float* scale, float* zero) {
  Floats low = {}, high = {};
  for (int64_t c = 0; c < width; c += kLanes) {
    low = smaller(low, load(row + c));
    high = larger(high, load(row + c));
  }
  const float least = -largest(-low), range = std::max(largest(high) - least, 1e-30f);
  *scale = range / 255.0f;
  *zero = std::rint(-least / *scale);
  const float per = 255.0f / range, shift = *zero + 0.5f;
  typedef uint8_t Small __attribute__((vector_size(16), aligned(1)));
  for (int64_t c = 0; c < width; c += kLanes) {
    const Floats steps = smaller(larger(load(row + c) * per + shift, Floats{}), Floats{} + 255.5f);
    *reinterpret_cast<Small*>(bytes + c) = __builtin_convertvector(__builtin_convertvector(steps, Ints), Small);
  }
}

struct Norm {
  const float *gain, *shift;
  float epsilon;
};

struct Moments {
  float mean, scale;
};

// LayerNorm of one row in place, and a copy in the type that the next multiplication takes.
template <typename Kept>
Moments normalize(const Norm& norm, int64_t width, float* row, Kept* copy) {
  Floats sums = {}, squares = {};
  for (int64_t c = 0; c < width; c += kLanes) sums += load(row + c);
  const float mean = sum(sums) / static_cast<float>(width);
  for (int64_t c = 0; c < width; c += kLanes) {
    const Floats away = load(row + c) - mean;
    squares += away * away;
  }
  const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + norm.epsilon);
  for (int64_t c = 0; c < width; c += kLanes) {
    const Floats value = (load(row + c) - mean) * scale * load(norm.gain + c) + load(norm.shift + c);
    store(row + c, value);
    store(copy + c, value);
  }
  return {mean, scale};
}

}  // namespace sluice
