// A linear layer, in the way in which its kind is multiplied fastest.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "interface.h"
#include "memory.h"
#include "multiply.h"
#include "schedule.h"
#include "strassen.h"
#include "tables.h"

namespace sluice {

// Whether all are numbers: a row of others would spoil its neighbour's, were the two taken as a pair.
template <typename T>
bool are_finite(const T* values, int64_t count) {
  Floats zeros = {};
  for (int64_t i = 0; i < count; i += kLanes) zeros += load(values + i) * 0.0f;
  return sum(zeros) == 0.0f;
}

template <class Kind>
class Linear {
  using Value = typename Kind::Value;
  using Kept = typename Kind::Kept;

 public:
  // may_pair: whether what it will be given is finite.
  Linear(Arena& arena, const LinearSource& source, int64_t inputs, int64_t outputs, bool may_pair) {
    float* bias = arena.copy(source.bias, outputs);
    if (std::is_same_v<Kind, Single> && may_pair && StrassenWeights::can(inputs, outputs) &&
        are_finite(source.weight, inputs * outputs) && are_finite(source.bias, outputs)) {
      pairs_ = {arena.take<float>(StrassenWeights::size(inputs, outputs)), bias, inputs, outputs};
      pack(source.weight, pairs_);
      return;
    }
    panels_ = {arena.take<Value>(Weights<Kind>::size(inputs, outputs)), bias, inputs, outputs};
    if constexpr (std::is_integral_v<Value>) {
      panels_.scales = arena.take<float>(whole_vectors(outputs));
      panels_.sums = arena.take<float>(whole_vectors(outputs));
    }
    pack<Kind>(source.weight, panels_);
  }

  // Puts out a share of what becomes of a table's first rows; `next` is the layer behind.
  template <class Out>
  void apply(Tables<Kind>& tables, Table<Kept> rows, int64_t count, const Linear& next, const Share& share,
             Out output) const {
    if constexpr (std::is_same_v<Kind, Single>)
      if (pairs_.values)
        return multiply(tables.pairs(rows, count, pairs_.inputs, share), pairs_, share.from(pairs_.pairs()),
                        share.to(pairs_.pairs()), next.begin(share), output);
    multiply<Kind>(tables.operand(rows, count, panels_.inputs, share), panels_, share.from(panels_.panels()),
                   share.to(panels_.panels()), next.begin(share), output);
  }

 private:
  // Where a share's weights begin.
  const Value* begin(const Share& share) const {
    if constexpr (std::is_same_v<Kind, Single>)
      if (pairs_.values) return pairs_.factor(share.from(pairs_.pairs()), 0);
    return panels_.panel(share.from(panels_.panels()));
  }

  // One of the two.
  Weights<Kind> panels_ = {};
  StrassenWeights pairs_ = {};
};

}  // namespace sluice
