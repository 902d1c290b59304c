// One head of a row's queries, keys and values, as attention multiplies them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "memory.h"
#include "multiply.h"
#include "vectors.h"

namespace sluice {

// One head of one tensor; consecutive tokens lie `stride` elements apart.
template <typename T>
struct Head {
  T* data;
  int64_t stride;
  T* token(int64_t index) const { return data + index * stride; }
};

// The queries [from, to) of a row, and the keys [first, end) that any of them sees.
struct Part {
  int64_t from, to, first, end, width, window;
  int64_t queries() const { return to - from; }
  int64_t keys() const { return end - first; }
};

// Up to a vector of groups of neighbouring values, a group a lane, in the kind's own type.
template <class Kind, typename T>
inline Floats load_groups(const T* from, int64_t count) {
  if constexpr (Kind::kGroup == 1) return load(from);
  Floats groups = {};
  if (count == kLanes)
    std::memcpy(&groups, from, sizeof(groups));
  else
    std::memcpy(&groups, from, count * sizeof(float));
  return groups;
}

// kCount vectors of queries, from the part's first on, as a panel; where they end, the last is repeated.
template <class Kind, int kCount, typename T>
void pack_queries(const Part& part, Head<const T> query, typename Kind::Value* packed) {
  const int64_t groups = part.width / Kind::kGroup;
  for (int vector = 0; vector < kCount; ++vector)
    for (int64_t group = 0; group < groups; group += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, groups - group);
      Floats block[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t one = std::min(part.from + vector * kLanes + lane, part.to - 1);
        block[lane] = load_groups<Kind>(query.token(one) + group * Kind::kGroup, count);
      }
      transpose(block);
      for (int64_t one = 0; one < count; ++one)
        std::memcpy(packed + ((group + one) * kCount + vector) * kLanes * Kind::kGroup, &block[one], sizeof(Floats));
    }
}

// A part's keys as the left of a product: where they lie, or a copy in the kind's own type.
template <class Kind, typename T>
Rows<Kind> keys_of(const Part& part, Head<const T> key, Buffer<typename Kind::Value>& buffer) {
  if constexpr (std::is_same_v<T, typename Kind::Value>) {
    return {key.token(part.first), key.stride, part.keys()};
  } else {
    auto* copy = buffer.room(part.keys() * part.width);
    for (int64_t j = 0; j < part.keys(); ++j)
      for (int64_t c = 0; c < part.width; c += kLanes)
        store(copy + j * part.width + c, load(key.token(part.first + j) + c));
    return {copy, part.width, part.keys()};
  }
}

// Two tokens' values side by side, of each lane a pair; a second that is not there is zero.
inline void store_pairs(Brain* to, const Brain* first, const Brain* second) {
  Bits pairs = load_bits(first);
  if (second) pairs |= load_bits(second) << 16;
  std::memcpy(to, &pairs, sizeof(pairs));
}

// A part's values, transposed, as the left of a product: where they lie, or a copy in the kind's own type and groups.
template <class Kind, typename T>
Columns<Kind> values_of(const Part& part, Head<const T> value, Buffer<typename Kind::Value>& buffer) {
  if constexpr (std::is_same_v<T, typename Kind::Value> && Kind::kGroup == 1) {
    return {value.token(part.first), value.stride};
  } else {
    const int64_t stride = part.width * Kind::kGroup;
    auto* copy = buffer.room((part.keys() + Kind::kGroup - 1) / Kind::kGroup * stride);
    for (int64_t j = part.first; j < part.end; j += Kind::kGroup, copy += stride) {
      for (int64_t c = 0; c < part.width; c += kLanes)
        if constexpr (Kind::kGroup == 1)
          store(copy + c, load(value.token(j) + c));
        else
          store_pairs(copy + c * Kind::kGroup, value.token(j) + c, j + 1 < part.end ? value.token(j + 1) + c : nullptr);
    }
    return {buffer.data(), stride};
  }
}

}  // namespace sluice
