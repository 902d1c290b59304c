// A linear layer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "interface.h"
#include "memory.h"
#include "multiply.h"
#include "schedule.h"
#include "sizes.h"
#include "tables.h"

namespace sluice {

template <class Kind>
class Linear {
  using Value = typename Kind::Value;
  using Kept = typename Kind::Kept;

 public:
  // What its weights take, but for a few vectors.
  static int64_t bytes(int64_t inputs, int64_t outputs) {
    return Weights<Kind>::size(inputs, outputs) * static_cast<int64_t>(sizeof(Value));
  }

  Linear(Arena& arena, const LinearSource& source, const Sizes& sizes, int64_t outputs) {
    const int64_t inputs = static_cast<int64_t>(sizes.size());
    weights_ = {arena.take<Value>(Weights<Kind>::size(inputs, outputs)), arena.copy(source.bias, outputs), inputs, outputs};
    if constexpr (std::is_integral_v<Value> || kPairs) {
      weights_.scales = arena.take<float>(whole_vectors(outputs));
      weights_.sums = arena.take<float>(whole_vectors(outputs));
    }
    if constexpr (kPairs) {
      weights_.order = arena.take<int64_t>(inputs / kLanes);
      PairsPacker(source.weight, sizes, weights_);
    } else {
      pack<Kind>(source.weight, weights_);
    }
  }

  // Puts out a share of what becomes of a table's first rows; `next` is the layer behind.
  template <class Out>
  void apply(Tables<Kind>& tables, Table<Kept> rows, int64_t count, const Linear& next, const Share& share,
             Out output) const {
    multiply<Kind>(tables.operand(rows, count, weights_, share), weights_, share.from(weights_.panels()),
                   share.to(weights_.panels()), next.weights_.panel(share.from(next.weights_.panels())), output);
  }

 private:
  static constexpr bool kPairs = std::is_same_v<Kind, Paired>;

  Weights<Kind> weights_;
};

}  // namespace sluice
