// How large what a layer is given is expected to be, from the weights before it.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "interface.h"

namespace sluice {

// Of each value the root of its mean square.
using Sizes = std::vector<float>;

// Behind LayerNorm.
inline Sizes sizes(const Norm& norm, int64_t width) {
  Sizes made(width);
  for (int64_t c = 0; c < width; ++c) made[c] = std::hypot(norm.gain[c], norm.shift[c]);
  return made;
}

// Behind a linear layer and what makes less of its results: attention, or an activation. In MiniLM-L6 a quarter to a half is
// left by either.
inline Sizes sizes(const LinearSource& source, const Sizes& inputs, int64_t outputs) {
  constexpr float kLeft = 0.3f;
  Sizes made(outputs);
  const float* weight = source.weight;
  for (int64_t c = 0; c < outputs; ++c) {
    float squares = source.bias[c] * source.bias[c];
    for (const float size : inputs) squares += *weight * *weight * size * size, ++weight;
    made[c] = kLeft * std::sqrt(squares);
  }
  return made;
}

}  // namespace sluice
