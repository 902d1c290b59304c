// What is between the steps of a layer, for one block of tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "activations.h"
#include "memory.h"
#include "multiply.h"
#include "schedule.h"

namespace sluice {

template <class Kind>
struct Tables {
  using Kept = typename Kind::Kept;
  using Value = typename Kind::Value;
  // Behind each row, so that rows do not fall on the same lines of the cache.
  static constexpr int64_t kPad = 64 / sizeof(Kept);

  Table<Kept> normal, attended, wide;

  // Room for so many tokens.
  void grow(int64_t width, int64_t intermediate, int64_t count) {
    if constexpr (kPairs) extra_.room(count);
    const int64_t narrow = width + kPad, broad = intermediate + kPad;
    Kept* at = memory_.room(count * (2 * narrow + broad));
    normal = {at, narrow};
    attended = {at + count * narrow, narrow};
    wide = {at + 2 * count * narrow, broad};
    if constexpr (kRounds) {
      values_.room(count * (std::max(width, intermediate) + kValuesPad));
      scales_.room(count);
      zeros_.room(count);
    }
  }

  // A table's rows as a multiplication takes them, once all threads have done what goes before it.
  Rows<Kind> operand(Table<Kept> rows, int64_t count, const Weights<Kind>& weights, const Share& share) {
    share.meet();
    if constexpr (kRounds) {
      const int64_t stride = weights.inputs + kValuesPad;
      for (int64_t row = share.from(count); row < share.to(count); ++row)
        quantize(rows.row(row), weights.inputs, values_.data() + row * stride, scales_.data() + row, zeros_.data() + row);
      share.meet();
      return {values_.data(), stride, count, scales_.data(), zeros_.data()};
    } else if constexpr (kPairs) {
      for (int64_t row = share.from(count); row < share.to(count); ++row)
        extra_.data()[row] = extra(rows.row(row), weights);
      share.meet();
      return {rows.data, rows.stride, count, nullptr, nullptr, extra_.data(), weights.order};
    } else {
      return {rows.data, rows.stride, count};
    }
  }

 private:
  // Rows are not kept as they are multiplied.
  static constexpr bool kRounds = !std::is_same_v<Kept, Value>;
  static constexpr bool kPairs = std::is_same_v<Kind, Paired>;
  static constexpr int64_t kValuesPad = 64;

  Buffer<Kept> memory_;
  Buffer<Value> values_;
  Buffer<float> scales_, zeros_, extra_;
};

}  // namespace sluice
