// The first layer's queries, keys and values without a multiplication: LayerNorm is linear but for a row's mean and scale,
// so that what a word adds to their products is the same wherever it stands, and what a place adds whatever stands there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "interface.h"
#include "memory.h"
#include "multiply.h"

namespace sluice {

class Lookup {
 public:
  // A twenty-fourth of MiniLM-L6's multiplications, for 134 MiB. Many languages' words would take a gigabyte.
  static constexpr int64_t kMostBytes = 256 << 20;
  // With so much room left.
  static bool can(const Shape& shape, int64_t outputs, int64_t room) {
    const int64_t rows = shape.vocabulary + shape.positions;
    return rows * outputs * static_cast<int64_t>(sizeof(float)) <= std::min(kMostBytes, room);
  }

  // Of a linear layer behind the embeddings' LayerNorm.
  Lookup(Arena& arena, const Shape& shape, const Norm& norm, const LinearSource& source, int64_t outputs)
      : width_(shape.width), outputs_(outputs) {
    std::vector<float> packed(Weights<Single>::size(width_, outputs)), none(outputs), ones(width_, 1.0f);
    Weights<Single> weights{packed.data(), none.data(), width_, outputs};
    pack<Single>(source.weight, weights);
    words_ = products(arena, weights, static_cast<const float*>(shape.words), shape.vocabulary, norm.gain);
    places_ = products(arena, weights, shape.places, shape.positions, norm.gain);
    gain_ = products(arena, weights, norm.gain, 1, ones.data());
    shift_ = products(arena, weights, norm.shift, 1, ones.data());
    for (int64_t c = 0; c < outputs; ++c) shift_[c] += source.bias[c];
  }

  // What becomes of a word at a place; `next` is the word that will be asked for next.
  void put(int32_t word, int64_t place, const Moments& moments, int32_t next, float* to) const {
    const float *left = words_ + word * outputs_, *right = places_ + place * outputs_, *ahead = words_ + next * outputs_;
    for (int64_t c = 0; c < outputs_; c += kLanes) {
      __builtin_prefetch(ahead + c);
      const Floats away = load(left + c) + load(right + c) - load(gain_ + c) * moments.mean;
      store(to + c, away * moments.scale + load(shift_ + c));
    }
  }

 private:
  static constexpr int64_t kRows = 96;

  // Of rows whose values are first multiplied by their factors.
  float* products(Arena& arena, const Weights<Single>& weights, const float* rows, int64_t count, const float* factors) {
    float* made = arena.take<float>(count * outputs_);
#pragma omp parallel for
    for (int64_t from = 0; from < count; from += kRows) {
      const int64_t some = std::min(kRows, count - from);
      std::vector<float> left(some * width_);
      for (int64_t i = 0; i < some * width_; ++i) left[i] = rows[from * width_ + i] * factors[i % width_];
      multiply<Single>({left.data(), width_, some}, weights, 0, weights.panels(), weights.values,
                       Output{[&](int64_t row) { return made + (from + row) * outputs_; },
                              [](float* to, Floats value) { store(to, value); }});
    }
    return made;
  }

  int64_t width_, outputs_;
  float *words_, *places_, *gain_, *shift_;
};

}  // namespace sluice
