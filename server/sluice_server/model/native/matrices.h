// What is multiplied: on the left rows, or columns, on the right a weight matrix in panels of a few vectors of columns.
#pragma once

#include <cstdint>

#include "kinds.h"
#include "vectors.h"

namespace sluice {

#if defined(__AVX2__) && !defined(__AVX512F__)
// 12 of 16 registers hold sums.
constexpr int kTileRows = 6, kColumns = 2;
#else
// 24 of 32 registers hold sums; with AVX-512 12 rows and 2 columns reached 89 % of the peak, these 97 %.
constexpr int kTileRows = 8, kColumns = 3;
#endif
constexpr int kPanel = kColumns * kLanes;
// A panel is larger than the first cache, and what fetches ahead by itself comes late: asked for so many groups before,
// one core of a Cascade Lake multiplies 141 instead of 108 billion floats a second. Behind the last panel it is no fault.
constexpr int kAhead = 16;

// Rows of values, `stride` values apart.
template <class Kind>
struct Rows {
  const typename Kind::Value* data;
  int64_t stride, count;
  // Of each row: where values stand for scale x (value - zero), these two; else null.
  const float *scales = nullptr, *zeros = nullptr;
  // In pairs (pairs.h): what each row's sums are larger than its products, and the weights' order of inputs; else null.
  const float* extra = nullptr;
  const int64_t* order = nullptr;
  const typename Kind::Value* row(int64_t index) const { return data + index * stride; }
  const typename Kind::Value* at(int64_t row, int64_t k) const { return data + row * stride + k; }
  // Some of the rows, as a tile takes them.
  Rows part(int64_t from, int64_t to) const { return {row(from), stride, to - from, nullptr, nullptr, nullptr, order}; }
};

// The same transposed: a group of values of every row, one behind the other, and the next group `stride` values apart.
template <class Kind>
struct Columns {
  const typename Kind::Value* data;
  int64_t stride;
  const typename Kind::Value* at(int64_t row, int64_t k) const {
    return data + k / Kind::kGroup * stride + row * Kind::kGroup;
  }
};

// A packed weight matrix: value k of column c lies in panel c / kPanel, group k / kGroup, column c % kPanel.
template <class Kind>
struct Weights {
  typename Kind::Value* values;
  float* bias;
  int64_t inputs, outputs;
  // Of each column: what a weight of 1 is multiplied by to be the value that stands for it, upside down, and of bytes the
  // sum of its values, in pairs what its sums are larger than its products; else null.
  float *scales = nullptr, *sums = nullptr;
  // In pairs: where along a row each vector of inputs is that is multiplied next; else null.
  int64_t* order = nullptr;
  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  int64_t panel_size() const { return inputs * kPanel; }
  const typename Kind::Value* panel(int64_t index) const { return values + index * panel_size(); }
  static int64_t size(int64_t inputs, int64_t outputs) { return (outputs + kPanel - 1) / kPanel * kPanel * inputs; }
};

}  // namespace sluice
