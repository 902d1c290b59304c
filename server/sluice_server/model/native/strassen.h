// Rows of floats times a weight matrix by seven products of quarters instead of eight: Strassen's algorithm in Winograd's
// form (S. Winograd, "On multiplication of 2 x 2 matrices", 1971), once. Left, rows are taken in pairs, and the values of
// each in halves; right, the values in halves and panels of columns in pairs. What is summed of the weights is summed when
// they are packed. A row's rounding errors are its neighbour's as well.
#pragma once

#include <algorithm>
#include <cstdint>

#include "multiply.h"
#include "vectors.h"

namespace sluice {

// What is multiplied, in this order, so that the quarters of the product are sums that go on from one to the next:
//
//   left    A11   A12   S1         S4        S2        S3         A22       A11 A12   first rows of pairs
//   right   B11   B21   T1         B22       T2        T3         -T4       A21 A22   second ones
//                       A21 + A22  A12 - S2  S1 - A11  A11 - A21
//                       B12 - B11            B22 - T1  B22 - B12  B21 - T2
//
// Where a block is all of a batch, fetching seven factors of weights from memory takes longer than it saves: its rows are
// multiplied by the first four, B12 being B11 + T1.
constexpr int kFactors = 7;

struct StrassenWeights {
  // Of each pair of panels the right factors, each a panel of half as many values as there are inputs.
  float *values, *bias;
  int64_t inputs, outputs;
  // Not of more inputs than outputs: what lies between a block's two layers has outliers, whose rounding errors would be
  // their neighbours'. States of MiniLM would come within 8e-5 of exact ones; so it is 7e-6, and 6e-6 by products alone.
  static bool can(int64_t inputs, int64_t outputs) { return inputs % (2 * kLanes) == 0 && inputs <= outputs; }
  static int64_t size(int64_t inputs, int64_t outputs) { return count(outputs) * kFactors * inputs / 2 * kPanel; }
  static int64_t count(int64_t outputs) { return (outputs + 2 * kPanel - 1) / (2 * kPanel); }
  int64_t pairs() const { return count(outputs); }
  int64_t factor_size() const { return inputs / 2 * kPanel; }
  const float* factor(int64_t pair, int index) const { return values + (pair * kFactors + index) * factor_size(); }
};

// Packs a matrix (outputs, inputs), row by row; columns behind the last are zeros.
inline void pack(const float* matrix, StrassenWeights& weights) {
  const int64_t half = weights.inputs / 2, size = weights.factor_size();
  const auto value = [&](int64_t k, int64_t column) {
    return column < weights.outputs ? matrix[column * weights.inputs + k] : 0.0f;
  };
  float* to = weights.values;
  for (int64_t pair = 0; pair < weights.pairs(); ++pair, to += (kFactors - 1) * size)
    for (int64_t k = 0; k < half; ++k)
      for (int64_t c = 0; c < kPanel; ++c, ++to) {
        const int64_t left = pair * 2 * kPanel + c, right = left + kPanel;
        const float b11 = value(k, left), b12 = value(k, right), b21 = value(k + half, left);
        const float b22 = value(k + half, right), t1 = b12 - b11, t2 = b22 - t1;
        const float factors[kFactors] = {b11, b21, t1, b22, t2, b22 - b12, b21 - t2};
        for (int f = 0; f < kFactors; ++f) to[f * size] = factors[f];
      }
}

// Rows and, where they are taken in pairs, the sums S1 to S4 of each, half as long as a row.
struct StrassenRows {
  Rows<Single> rows;
  int64_t inputs;
  float* sums;
  // Behind each sum, so that they do not fall on the same lines of the cache.
  static constexpr int64_t kPad = 16;
  static int64_t pairs(int64_t rows) { return (rows + 1) / 2; }
  static int64_t sums_size(int64_t rows, int64_t inputs) { return 4 * pairs(rows) * (inputs / 2 + kPad); }
  int64_t pairs() const { return pairs(rows.count); }

  // Computes the sums. The last row's neighbour may be one that does not count; it has to be there.
  void add_up() const {
    for (int64_t pair = 0; pair < pairs(); ++pair) {
      const float *first = rows.row(2 * pair), *second = rows.row(2 * pair + 1);
      for (int64_t k = 0; k < inputs / 2; k += kLanes) {
        const Floats a11 = load(first + k), a12 = load(first + inputs / 2 + k), a21 = load(second + k);
        const Floats s1 = a21 + load(second + inputs / 2 + k), s2 = s1 - a11;
        store(sum(0, pair) + k, s1);
        store(sum(1, pair) + k, a12 - s2);
        store(sum(2, pair) + k, s2);
        store(sum(3, pair) + k, a11 - a21);
      }
    }
  }

  // A left factor of some pairs.
  Rows<Single> factor(int index, int64_t pair, int64_t count) const {
    const auto half = [&](int64_t second, int64_t right) {
      return Rows<Single>{rows.row(2 * pair + second) + right * inputs / 2, 2 * rows.stride, count};
    };
    if (index == 0) return half(0, 0);
    if (index == 1) return half(0, 1);
    if (index == 6) return half(1, 1);
    return {sum(index - 2, pair), inputs / 2 + kPad, count};
  }

 private:
  float* sum(int64_t which, int64_t pair) const { return sums + (which * pairs() + pair) * (inputs / 2 + kPad); }
};

template <int kRows>
using TileSums = Floats[kRows][kColumns];

// What a tile fetches meanwhile.
struct Fetched {
  // What is asked for next: of each factor's size a vector for each of half a row's values.
  const float* later;
  // Where its own first row goes, and how far behind it the next one does.
  const float* out;
  int64_t stride;
};

// Quarters of a tile of the product: those of pairs' first and second rows, in the first and in the second panel.
struct Quarters {
  alignas(64) TileSums<kTileRows> of[2][2];
};

// As for_each; what is in registers stays there.
template <int kRows, class From, class To>
__attribute__((always_inline)) inline void copy(const From& from, To& to) {
  for_each<kRows, kColumns>([&](int r, int c) __attribute__((always_inline)) { to[r][c] = from[r][c]; });
}

template <int kRows, class From, class To>
__attribute__((always_inline)) inline void add(const From& from, To& to) {
  for_each<kRows, kColumns>([&](int r, int c) __attribute__((always_inline)) { to[r][c] += from[r][c]; });
}

// kRows pairs times a pair of panels.
template <int kRows>
__attribute__((noinline)) void strassen_tile(const StrassenRows& left, int64_t first, const StrassenWeights& right,
                                             int64_t pair, const Fetched& fetched, Quarters& results) {
  TileSums<kTileRows>(&c)[2][2] = results.of;
  TileSums<kRows> sums = {}, p1, p5;
  for (int index = 0; index < kFactors; ++index) {
    for (int row = 2 * kRows * index / kFactors; row < 2 * kRows * (index + 1) / kFactors; ++row)
      prefetch_to_write(fetched.out + row * fetched.stride, 2 * kPanel);
    accumulate<Single, kColumns, true, kRows>(sums, left.factor(index, first, kRows), right.factor(pair, index),
                                              right.inputs / 2, fetched.later + index * right.factor_size());
    switch (index) {
      case 0: copy<kRows>(sums, p1); break;
      case 1: copy<kRows>(sums, c[0][0]), copy<kRows>(TileSums<kRows>{}, sums); break;
      case 2: copy<kRows>(sums, p5); break;
      case 3: copy<kRows>(sums, c[0][1]), copy<kRows>(p1, sums); break;
      case 4: add<kRows>(sums, c[0][1]); break;
      case 5: copy<kRows>(sums, c[1][1]), add<kRows>(p5, c[1][1]); break;
      case 6: copy<kRows>(sums, c[1][0]); break;
    }
  }
}

// The same of kRows rows by themselves: the second rows' quarters stay as they are.
template <int kRows>
__attribute__((noinline)) void plain_tile(const StrassenRows& left, int64_t first, const StrassenWeights& right,
                                          int64_t pair, const Fetched& fetched, Quarters& results) {
  TileSums<kTileRows>(&c)[2][2] = results.of;
  TileSums<kRows> sums = {}, p1;
  for (int index = 0; index < 4; ++index) {
    const Rows<Single> half = {left.rows.row(first) + index % 2 * right.inputs / 2, left.rows.stride, kRows};
    accumulate<Single, kColumns, true, kRows>(sums, half, right.factor(pair, index), right.inputs / 2,
                                              fetched.later + index * right.factor_size());
    switch (index) {
      case 0: copy<kRows>(sums, p1); break;
      case 1: copy<kRows>(sums, c[0][0]), copy<kRows>(p1, sums); break;
      case 3: copy<kRows>(sums, c[0][1]); break;
    }
  }
}

// Of as many pairs, or rows, as a tile has rows at most.
template <int kRows = kTileRows>
__attribute__((always_inline)) inline void tile_of(int64_t count, const StrassenRows& left, int64_t first,
                                                   const StrassenWeights& right, int64_t pair, const Fetched& fetched,
                                                   Quarters& results) {
  if constexpr (kRows > 1)
    if (count < kRows) return tile_of<kRows - 1>(count, left, first, right, pair, fetched, results);
  const auto tile = left.sums ? strassen_tile<kRows> : plain_tile<kRows>;
  tile(left, first, right, pair, fetched, results);
}

// A row of a tile's results.
template <class Out>
inline void put_row(const Quarters& results, int64_t second, int64_t row, const StrassenWeights& right, int64_t pair,
                    float* to, Out& output) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half)
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = (pair * 2 + half) * kPanel + c * kLanes;
      if (column >= right.outputs) return;
      output.put(to + column, results.of[second][half][row][c] + load(right.bias + column));
    }
}

// Puts out all rows and the columns of some pairs of panels, with their bias; see multiply.h.
template <class Out>
void multiply(const StrassenRows& left, const StrassenWeights& right, int64_t first_pair, int64_t end_pair,
              const float* next, Out output) {
  const int64_t apart = left.sums ? 2 : 1, count = left.sums ? left.pairs() : left.rows.count;
  const int64_t tiles = (count + kTileRows - 1) / kTileRows;
  Quarters results;
  for (int64_t pair = first_pair; pair < end_pair; ++pair)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = count * t / tiles, to = count * (t + 1) / tiles;
      const float* later = pair + 1 < end_pair ? right.factor(pair + 1, 0) : next;
      later += std::min<int64_t>(t, kColumns - 1) * right.inputs / 2 * kLanes;
      const float* out = output.row(from * apart) + pair * 2 * kPanel;
      const float* behind = output.row(std::min(from * apart + 1, left.rows.count - 1)) + pair * 2 * kPanel;
      tile_of(to - from, left, from, right, pair, {later, out, behind - out}, results);
      for (int64_t one = from * apart; one < std::min(to * apart, left.rows.count); ++one)
        put_row(results, one % apart, one / apart - from, right, pair, output.row(one), output);
    }
}

}  // namespace sluice
