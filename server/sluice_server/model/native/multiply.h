// Rows times a weight matrix, in the precision of a kind: a tile of rows times a panel is summed in registers. Inputs and
// outputs are whole vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kinds.h"
#include "matrices.h"
#include "pairs.h"
#include "vectors.h"

namespace sluice {

// Packs a matrix (outputs, inputs), row by row, as layers hold theirs; the last panel is filled up with zeros.
template <class Kind>
void pack(const float* matrix, Weights<Kind>& weights) {
  if (weights.scales)
    for (int64_t c = 0; c < weights.outputs; ++c) {
      const float* column = matrix + c * weights.inputs;
      float most = 1e-30f, total = 0;
      for (int64_t k = 0; k < weights.inputs; ++k) most = std::max(most, std::abs(column[k]));
      for (int64_t k = 0; k < weights.inputs; ++k) total += std::rint(column[k] * (127.0f / most));
      weights.scales[c] = most / 127.0f;
      weights.sums[c] = total;
    }
  for (int64_t panel = 0; panel < weights.panels(); ++panel) {
    typename Kind::Value* to = weights.values + panel * weights.panel_size();
    for (int64_t k = 0; k < weights.inputs; k += Kind::kGroup)
      for (int64_t c = panel * kPanel; c < (panel + 1) * kPanel; ++c)
        for (int64_t one = k; one < k + Kind::kGroup; ++one) {
          const float value = c < weights.outputs ? matrix[c * weights.inputs + one] : 0.0f;
          *to++ = Kind::from(weights.scales && c < weights.outputs ? value / weights.scales[c] : value);
        }
  }
}

// Adds kRows rows times a panel of kCount vectors of columns to sums that are in registers. `later` is what will be asked
// for next: kLater vectors of it are fetched for each group of a row's values.
template <class Kind, int kCount, int kLater, int kRows, class Left>
__attribute__((always_inline)) inline void accumulate(typename Kind::Sums (&sums)[kRows][kCount], Left left,
                                                      const typename Kind::Value* panel, int64_t inputs,
                                                      const typename Kind::Value* later) {
  constexpr int kStep = kLanes * Kind::kGroup;
  for (int64_t k = 0; k < inputs; k += Kind::kGroup) {
    prefetch<kCount, true>(panel + kAhead * kCount * kStep);
    prefetch<kLater, false>(later + k * kLater * kLanes);
    typename Kind::Right right[kCount];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) right[c] = Kind::load_right(panel + c * kStep);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto spread = Kind::spread(left.at(r, k));
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) sums[r][c] = Kind::dot(sums[r][c], spread, right[c]);
    }
    panel += kCount * kStep;
  }
}

// each(r, c) of all kRows x kCount, without a loop: what is in registers stays there.
template <int kRows, int kCount, class Each>
__attribute__((always_inline)) inline void for_each(Each each) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) each(r, c);
}

// kRows rows times a panel of kCount vectors of columns; results of a row lie `stride` vectors behind the last one's.
template <class Kind, int kCount, int kLater, int kRows, class Left>
__attribute__((noinline)) void tile(Left left, const typename Kind::Value* panel, int64_t inputs,
                                    typename Kind::Sums* results, int64_t stride, const typename Kind::Value* later) {
  typename Kind::Sums sums[kRows][kCount] = {};
  if constexpr (std::is_same_v<Kind, Paired>)
    accumulate_pairs<kCount, kLater, kRows>(sums, left, panel, inputs, later);
  else
    accumulate<Kind, kCount, kLater, kRows>(sums, left, panel, inputs, later);
  for_each<kRows, kCount>([&](int r, int c) __attribute__((always_inline)) { results[r * stride + c] = sums[r][c]; });
}

// Inlined by order: handed on by as many functions as a tile has rows, bytes took 5 % longer.
template <class Kind, int kCount, int kLater = 0, int kRows = kTileRows>
__attribute__((always_inline)) inline void tile_of_rows(Rows<Kind> left, const typename Kind::Value* panel,
                                                        int64_t inputs, typename Kind::Sums* results, int64_t stride,
                                                        const typename Kind::Value* later = nullptr) {
  if constexpr (kRows > 1)
    if (left.count < kRows)
      return tile_of_rows<Kind, kCount, kLater, kRows - 1>(left, panel, inputs, results, stride, later);
  tile<Kind, kCount, kLater, kRows>(left, panel, inputs, results, stride, later);
}

// use(number) as a constant, of 1 to kMost.
template <int kMost, class Use>
__attribute__((always_inline)) inline void of_number(int64_t number, Use use) {
  if constexpr (kMost > 1)
    if (number < kMost) return of_number<kMost - 1>(number, use);
  use(std::integral_constant<int, kMost>());
}

// Where the rows of a product go, and what becomes of a vector of its values there: put(row(index) + column, values).
template <class Row, class Put>
struct Output {
  Row row;
  Put put;
};

// What is about to be written: a store waits for its line, and of a hundred in a row all but the first few wait.
template <typename T>
inline void prefetch_to_write(const T* to, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(to + i, 1);
}

// Puts out all rows and the columns of some panels, with their bias. `next` is what will be asked for behind the last
// panel.
template <class Kind, class Out>
void multiply(Rows<Kind> left, const Weights<Kind>& weights, int64_t first_panel, int64_t end_panel,
              const typename Kind::Value* next, Out output) {
  // In pairs two more registers hold weights, and two what is added.
  constexpr int kHeight = std::is_same_v<Kind, Paired> ? 7 : kTileRows;
  const int64_t tiles = (left.count + kHeight - 1) / kHeight;
  // Each tile fetches a part of the next panel, so that memory is not idle while a panel's further tiles find it in the
  // second cache: float32 batches take 4 to 15 % less time, small ones most. Few tiles fetch a larger part each: of 10
  // tokens another 20 %.
  const int64_t parts = tiles == 0 ? 0 : (kColumns + tiles - 1) / tiles;
  alignas(64) typename Kind::Sums results[kTileRows * kColumns];
  for (int64_t panel = first_panel; panel < end_panel; ++panel)
    for (int64_t t = 0; t < tiles; ++t) {
      // Tiles of about one height: a last one of a row or two would wait for its own sums.
      const int64_t from = left.count * t / tiles, to = left.count * (t + 1) / tiles;
      for (int64_t row = from; row < to; ++row) prefetch_to_write(output.row(row) + panel * kPanel, kPanel);
      const typename Kind::Value* values = weights.panel(panel);
      const auto* later = panel + 1 < end_panel ? weights.panel(panel + 1) : next;
      later += std::min<int64_t>(t * parts, kColumns) * weights.inputs * kLanes;
      of_number<kColumns>(parts, [&](auto vectors) {
        tile_of_rows<Kind, kColumns, vectors(), kHeight>(left.part(from, to), values, weights.inputs, results, kColumns,
                                                         later);
      });
      for (int64_t row = from; row < to; ++row) {
        auto* const to_row = output.row(row);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) {
          const int64_t column = panel * kPanel + c * kLanes;
          if (column >= weights.outputs) break;
          Floats value = Kind::real(results[(row - from) * kColumns + c]);
          if constexpr (std::is_integral_v<typename Kind::Value>)
            value = (value - left.zeros[row] * load(weights.sums + column)) *
                    (left.scales[row] * load(weights.scales + column));
          if constexpr (std::is_same_v<Kind, Paired>)
            value = (value - left.extra[row] - load(weights.sums + column)) * load(weights.scales + column);
          output.put(to_row + column, value + load(weights.bias + column));
        }
      }
    }
}

}  // namespace sluice
