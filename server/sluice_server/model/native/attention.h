// Attention of one head over one row of a packed batch: scores and weighted means are products of tiles (multiply.h),
// softmax is float32 in every precision. The same function as packed_attention in ../attention.py, its reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

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
  int64_t keys() const { return end - first; }
  int64_t padded_keys() const { return whole_vectors(keys()); }
};

// Vectors of columns in panels as wide as a tile takes, the last one narrower.
struct Panels {
  int64_t columns, inputs;
  int64_t count() const { return (columns / kLanes + kColumns - 1) / kColumns; }
  int64_t first(int64_t panel) const { return columns / kLanes * panel / count(); }
  int64_t vectors(int64_t panel) const { return first(panel + 1) - first(panel); }
  int64_t start(int64_t panel) const { return first(panel) * kLanes * inputs; }
};

// So many queries' scores become weights together: as many as registers hold.
constexpr int kTogether = kTileRows / 2;

// Buffers of one thread, grown as needed.
template <class Kind>
struct Scratch {
  std::vector<typename Kind::Value> keys, values, queries, weights;
  std::vector<float> scores;
};

template <typename T>
inline T* room(std::vector<T>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

// Up to sixteen groups of neighbouring values, a group a lane, in the kind's own type.
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

// Keys as panels: the columns are the keys, the inputs what they are made of. Where keys end, the last is repeated.
template <class Kind, typename T>
void pack_keys(const Part& part, Head<const T> key, typename Kind::Value* packed) {
  const Panels panels{part.padded_keys(), part.width};
  const int64_t groups = part.width / Kind::kGroup;
  for (int64_t panel = 0; panel < panels.count(); ++panel)
    for (int64_t vector = 0; vector < panels.vectors(panel); ++vector)
      for (int64_t group = 0; group < groups; group += kLanes) {
        const int64_t count = std::min<int64_t>(kLanes, groups - group);
        Floats block[kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const int64_t j = std::min((panels.first(panel) + vector) * kLanes + lane, part.keys() - 1);
          block[lane] = load_groups<Kind>(key.token(part.first + j) + group * Kind::kGroup, count);
        }
        transpose(block);
        for (int64_t one = 0; one < count; ++one)
          std::memcpy(packed + panels.start(panel) +
                          ((group + one) * panels.vectors(panel) + vector) * kLanes * Kind::kGroup,
                      &block[one], sizeof(Floats));
      }
}

// Values as panels: the columns are what they are made of, the inputs the keys. Where keys end, zeros follow.
template <class Kind, typename T>
void pack_values(const Part& part, Head<const T> value, typename Kind::Value* packed) {
  const Panels panels{part.width, part.padded_keys()};
  for (int64_t panel = 0; panel < panels.count(); ++panel)
    for (int64_t j = 0; j < part.padded_keys(); j += Kind::kGroup)
      for (int64_t vector = 0; vector < panels.vectors(panel); ++vector) {
        const int64_t c = (panels.first(panel) + vector) * kLanes;
        Floats lanes = {};
        if constexpr (Kind::kGroup == 1) {
          if (j < part.keys()) lanes = load(value.token(part.first + j) + c);
        } else {
          Bits pairs = {};
          if (j < part.keys()) pairs = load_bits(value.token(part.first + j) + c);
          if (j + 1 < part.keys()) pairs |= load_bits(value.token(part.first + j + 1) + c) << 16;
          std::memcpy(&lanes, &pairs, sizeof(lanes));
        }
        std::memcpy(packed + panels.start(panel) + (j * panels.vectors(panel) + vector * Kind::kGroup) * kLanes, &lanes,
                    sizeof(lanes));
      }
}

// Of the scores [from, to) those beside [low, high): they weigh 2^-126, which is nothing beside a sum of at least 1.
inline void hide(float* scores, int64_t from, int64_t to, int64_t low, int64_t high) {
  const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int64_t j = from; j < to; j += kLanes) {
    if (j >= low && j + kLanes <= high) continue;
    const Ints place = lanes + static_cast<int32_t>(j);
    const Ints seen = (place >= static_cast<int32_t>(low)) & (place < static_cast<int32_t>(high));
    store(scores + j, seen ? load(scores + j) : Floats{} - INFINITY);
  }
}

// Scores of some queries, one behind the other, to weights that are not yet divided by their sums, whose reciprocals are
// `scales`. A bias, where there is one, is added to the scaled score of a key by its distance behind the query. Several
// at a time, as a query by itself waits for its own largest score and for its own sum.
template <class Kind, int kRows>
void weigh(const Part& part, int64_t query, float scale, const float* bias, float* scores, typename Kind::Value* weights,
           int64_t stride, float* scales) {
  const int64_t padded = part.padded_keys();
  // The keys that a query sees.
  const auto low = [&](int64_t one) {
    return part.window > 0 ? std::max<int64_t>(0, one - part.window + 1 - part.first) : 0;
  };
  const auto high = [&](int64_t one) {
    return part.window > 0 ? std::min(part.keys(), one + part.window - part.first) : part.keys();
  };
  // The vectors that any of the queries sees; those before and behind them weigh nothing.
  const int64_t from = low(query) / kLanes * kLanes, to = whole_vectors(high(query + kRows - 1));
  for (int64_t row = 0; row < kRows; ++row) {
    float* own = scores + row * padded;
    if (bias) {
      const float* behind = bias + part.first - query - row;
      for (int64_t j = from; j < to; j += kLanes) store(own + j, load(own + j) * scale + load(behind + j));
    }
    hide(own, from, to, low(query + row), high(query + row));
  }
  constexpr float kLog2OfE = 1.44269504088896341f;
  scale = bias ? kLog2OfE : scale * kLog2OfE;
  Floats top[kRows], total[kRows] = {};
  for (Floats& one : top) one = Floats{} - INFINITY;
  for (int64_t j = from; j < to; j += kLanes)
    for (int row = 0; row < kRows; ++row) top[row] = larger(top[row], load(scores + row * padded + j));
  float highest[kRows];
  for (int row = 0; row < kRows; ++row) highest[row] = largest(top[row]) * scale;
  for (int64_t j = from; j < to; j += kLanes)
    for (int row = 0; row < kRows; ++row) {
      constexpr bool kRough = std::is_same_v<typename Kind::Value, Brain>;
      const Floats one = power<kRough>(load(scores + row * padded + j) * scale - highest[row]);
      store(weights + row * stride + j, one);
      total[row] += one;
    }
  for (int row = 0; row < kRows; ++row) {
    for (int64_t j = 0; j < from; j += kLanes) store(weights + row * stride + j, Floats{});
    for (int64_t j = to; j < padded; j += kLanes) store(weights + row * stride + j, Floats{});
    scales[row] = 1.0f / sum(total[row]);
  }
}

// bias: of each distance behind a query, from the longest before it to a vector past the longest behind it, and
// pointing at its own; or null.
template <class Kind, typename T>
void attend(const Part& part, Head<const T> query, Head<const T> key, Head<const T> value, Head<T> out, float scale,
            const float* bias, Scratch<Kind>& scratch) {
  using Value = typename Kind::Value;
  const int64_t padded = part.padded_keys(), stride = padded + 64 / sizeof(Value);
  Value* keys = room(scratch.keys, part.width * padded);
  Value* values = room(scratch.values, part.width * padded);
  Value* weights = room(scratch.weights, kTileRows * stride);
  float* scores = room(scratch.scores, kTileRows * padded);
  pack_keys<Kind>(part, key, keys);
  pack_values<Kind>(part, value, values);
  const Panels over_keys{padded, part.width}, over_width{part.width, padded};
  alignas(64) Floats results[kTileRows * kColumns];
  const int64_t tiles = (part.to - part.from + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t from = part.from + (part.to - part.from) * t / tiles;
    const int64_t count = part.from + (part.to - part.from) * (t + 1) / tiles - from;
    Rows<Kind> queries{nullptr, query.stride, count};
    if constexpr (std::is_same_v<T, Value>) {
      queries.data = query.token(from);
    } else {
      Value* converted = room(scratch.queries, kTileRows * part.width);
      for (int64_t row = 0; row < count; ++row)
        for (int64_t c = 0; c < part.width; c += kLanes)
          store(converted + row * part.width + c, load(query.token(from + row) + c));
      queries = {converted, part.width, count};
    }
    for (int64_t panel = 0; panel < over_keys.count(); ++panel) {
      const int64_t vectors = over_keys.vectors(panel);
      any_tile<Kind>(queries, keys + over_keys.start(panel), vectors, part.width,
                     reinterpret_cast<Floats*>(scores) + over_keys.first(panel), padded / kLanes);
    }
    float scales[kTileRows];
    for (int64_t row = 0; row < count;) {
      const auto some = [&](auto rows) {
        weigh<Kind, rows()>(part, from + row, scale, bias, scores + row * padded, weights + row * stride, stride,
                            scales + row);
        row += rows();
      };
      if (count - row >= kTogether)
        some(std::integral_constant<int, kTogether>());
      else
        some(std::integral_constant<int, 1>());
    }
    for (int64_t panel = 0; panel < over_width.count(); ++panel) {
      const int64_t vectors = over_width.vectors(panel);
      any_tile<Kind>({weights, stride, count}, values + over_width.start(panel), vectors, padded, results, vectors);
      for (int64_t row = 0; row < count; ++row)
        for (int64_t v = 0; v < vectors; ++v)
          store(out.token(from + row) + (over_width.first(panel) + v) * kLanes,
                results[row * vectors + v] * scales[row]);
    }
  }
}

}  // namespace sluice
