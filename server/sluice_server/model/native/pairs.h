// Floats multiplied in pairs, by Winograd's inner product (S. Winograd, "A new algorithm for inner product", 1968):
//
//   x1 y1 + x2 y2 = (x1 + y2)(x2 + y1) - x1 x2 - y1 y2
//
// One multiplication less, two additions more; what is subtracted is a row's or a column's alone. AMD's cores add in other
// units than they multiply in: with two inputs of three in pairs and the third as it is, both are busy all the time, and
// three products take the time of two.
//
// Sums are as exact as x1 x2 and y1 y2 are small. So a column's weights are brought to the size of what they are multiplied
// by, exactly, by a power of two; and the third as it is are those inputs that, or whose weights, are larger than others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "matrices.h"
#include "vectors.h"

namespace sluice {

// Inputs are taken by triples of vectors: one as it is, pairs' firsts, pairs' seconds. Behind the last triple, one or two
// may be left that are as they are, too.
inline int64_t triples(int64_t inputs) { return inputs / (3 * kLanes); }

// Every other triple is taken with both signs turned, x1 y1 + x2 y2 = x1 x2 + y1 y2 - (x1 - y2)(x2 - y1), so that what of
// x1 x2 has one sign, as most that an activation lets pass, does not add up.
inline float sign(int64_t triple) { return triple % 2 == 0 ? 1.0f : -1.0f; }

// Packs a matrix (outputs, inputs), row by row; sizes (sizes.h): how large each input is expected to be.
class PairsPacker {
 public:
  PairsPacker(const float* matrix, const std::vector<float>& sizes, Weights<Paired>& weights)
      : matrix_(matrix), sizes_(sizes), weights_(weights), factors_(weights.panels() * kPanel) {
    put_in_order();
    for (int64_t column = 0; column < weights.outputs; ++column) scale(column);
    float* to = weights.values;
    for (int64_t panel = 0; panel < weights.panels(); ++panel) to = pack(panel, to);
  }

 private:
  float weight(int64_t column, int64_t k) const { return matrix_[column * weights_.inputs + k]; }

  // As they are: the vectors with the largest inputs, or weights, as against the mean of all.
  void put_in_order() {
    const int64_t inputs = weights_.inputs, vectors = inputs / kLanes, groups = triples(inputs);
    std::vector<double> squares(inputs), largest(vectors);
    for (int64_t column = 0; column < weights_.outputs; ++column)
      for (int64_t k = 0; k < inputs; ++k) squares[k] += double{weight(column, k)} * weight(column, k);
    double all_sizes = 1e-30, all_squares = 1e-30;
    for (int64_t k = 0; k < inputs; ++k) all_sizes += double{sizes_[k]} * sizes_[k], all_squares += squares[k];
    for (int64_t k = 0; k < inputs; ++k)
      largest[k / kLanes] = std::max(largest[k / kLanes], sizes_[k] * sizes_[k] / all_sizes + squares[k] / all_squares);
    std::vector<int64_t> sorted(vectors);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int64_t a, int64_t b) { return largest[a] > largest[b]; });
    const int64_t alone = vectors - 2 * groups;
    // In the order in which they lie, as the processor fetches ahead: by size, a long row took 5 % longer.
    std::sort(sorted.begin(), sorted.begin() + alone);
    std::sort(sorted.begin() + alone, sorted.end());
    for (int64_t group = 0; group < groups; ++group) {
      weights_.order[3 * group] = sorted[group] * kLanes;
      weights_.order[3 * group + 1] = sorted[alone + 2 * group] * kLanes;
      weights_.order[3 * group + 2] = sorted[alone + 2 * group + 1] * kLanes;
    }
    for (int64_t one = groups; one < alone; ++one) weights_.order[2 * groups + one] = sorted[one] * kLanes;
  }

  // each(k1, k2) of all pairs of inputs.
  template <class Each>
  void for_each_pair(Each each) const {
    for (int64_t group = 0; group < triples(weights_.inputs); ++group)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        each(weights_.order[3 * group + 1] + lane, weights_.order[3 * group + 2] + lane, sign(group));
  }

  void scale(int64_t column) {
    double sizes = 1e-30, squares = 1e-30, products = 0;
    for_each_pair([&](int64_t k1, int64_t k2, float sign) {
      const double y1 = weight(column, k1), y2 = weight(column, k2);
      sizes += sizes_[k1] * sizes_[k1] + sizes_[k2] * sizes_[k2];
      squares += y1 * y1 + y2 * y2;
      products += sign * y1 * y2;
    });
    const double factor = std::exp2(std::rint(std::log2(sizes / squares) / 2));
    factors_[column] = static_cast<float>(factor);
    weights_.scales[column] = static_cast<float>(1 / factor);
    weights_.sums[column] = static_cast<float>(products * factor * factor);
  }

  float* pack(int64_t panel, float* to) const {
    const auto put = [&](int64_t k) {
      for (int64_t column = panel * kPanel; column < (panel + 1) * kPanel; ++column)
        *to++ = column < weights_.outputs ? weight(column, k) * factors_[column] : 0.0f;
    };
    const int64_t vectors = weights_.inputs / kLanes, in_triples = 3 * triples(weights_.inputs);
    for (int64_t first = 0; first < in_triples; first += 3)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        for (int64_t one = first; one < first + 3; ++one) put(weights_.order[one] + lane);
    for (int64_t one = in_triples; one < vectors; ++one)
      for (int64_t lane = 0; lane < kLanes; ++lane) put(weights_.order[one] + lane);
    return to;
  }

  const float* matrix_;
  const std::vector<float>& sizes_;
  Weights<Paired>& weights_;
  std::vector<float> factors_;
};

// What a row's sums are larger than its products: x1 x2 of all pairs.
inline float extra(const float* row, const Weights<Paired>& weights) {
  Floats sums = {};
  for (int64_t group = 0; group < triples(weights.inputs); ++group)
    sums += sign(group) * load(row + weights.order[3 * group + 1]) * load(row + weights.order[3 * group + 2]);
  return sum(sums);
}

// As accumulate in multiply.h.
template <int kCount, int kLater, int kRows>
__attribute__((always_inline)) inline void accumulate_pairs(Floats (&sums)[kRows][kCount], const Rows<Paired>& left,
                                                            const float* panel, int64_t inputs, const float* later) {
  constexpr int kStep = kCount * kLanes;
  // Not shared with accumulate: with a function for both, bfloat16 took 1 % longer.
  const auto alone = [&](int64_t k, const float* from) __attribute__((always_inline)) {
    Floats right[kCount];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) right[c] = load(from + c * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Floats one = spread(left.at(r, k));
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) sums[r][c] += one * right[c];
    }
  };
  const auto triple = [&](const int64_t* at, auto is_even) __attribute__((always_inline)) {
    for (int64_t lane = 0; lane < kLanes; ++lane, panel += 3 * kStep, later += 3 * kLater * kLanes) {
      prefetch<3 * kCount, true>(panel + kAhead * kStep);
      prefetch<3 * kLater, false>(later);
      Floats first[kCount], second[kCount];
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c)
        first[c] = load(panel + kStep + c * kLanes), second[c] = load(panel + 2 * kStep + c * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Floats one = spread(left.at(r, at[1] + lane)), other = spread(left.at(r, at[2] + lane));
#pragma GCC unroll 4
        for (int c = 0; c < kCount; ++c)
          if constexpr (is_even())
            sums[r][c] += (one + second[c]) * (other + first[c]);
          else
            sums[r][c] -= (one - second[c]) * (other - first[c]);
      }
      alone(at[0] + lane, panel);
    }
  };
  const int64_t* order = left.order;
  for (int64_t group = 0; group < triples(inputs); ++group, order += 3)
    if (group % 2 == 0)
      triple(order, std::true_type());
    else
      triple(order, std::false_type());
  for (int64_t rest = 0; rest < inputs / kLanes - 3 * triples(inputs); ++rest)
    for (int64_t lane = 0; lane < kLanes; ++lane, panel += kStep) alone(order[rest] + lane, panel);
}

}  // namespace sluice
