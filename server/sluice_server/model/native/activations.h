// What layers compute elementwise and along a row, a vector of floats at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gelu.h"
#include "vectors.h"

namespace sluice {

// Which function lies between the two linear layers of a block; the numbers are encoder.py's.
enum Activation : int64_t { kGelu = 0, kRelu = 1 };

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
  typedef uint8_t Small __attribute__((vector_size(kLanes), aligned(1)));
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
