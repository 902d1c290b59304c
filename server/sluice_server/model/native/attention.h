// Attention of one head over one row of a packed batch. The columns of its products (multiply.h) are queries: keys and
// values are multiplied where they lie, and a softmax takes a vector of queries side by side, in float32 in every kind.
// Keys are taken some at a time, as FlashAttention does (Dao et al., 2022), so that scores stay in the cache. The same
// function as packed_attention in ../attention.py, its reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "heads.h"
#include "memory.h"
#include "multiply.h"
#include "vectors.h"

namespace sluice {

// What a query's scores are multiplied by, and what is then added, of each distance behind a key and pointing at its own;
// or null.
struct Scoring {
  float scale;
  const float* bias;
};

// Buffers of one thread.
template <class Kind>
struct Scratch {
  Buffer<typename Kind::Value> queries, keys, values, weights;
  Buffer<float> scores, sums;
};

// kCount vectors of queries side by side, and what is known of them after some keys.
template <class Kind, int kCount>
class Together {
  using Value = typename Kind::Value;
  using Sums = typename Kind::Sums;
  // So many keys at a time.
  static constexpr int64_t kKeys = 128;
  // A tile's rows: of keys at most, and of what values are made of, whose number is whole vectors.
  static constexpr int kHeight = kColumns == 2 ? 8 / kCount : kCount == 1 ? 16 : 8;
  static constexpr int kKeyHeight = kColumns == 2 ? kTileRows : kHeight;
  // Before any score: finite, so that less itself it is zero.
  static constexpr float kLowest = -1e30f;

 public:
  Together(const Part& part, const Scoring& scoring, Scratch<Kind>& scratch)
      : part_(part), scoring_(scoring), queries_(scratch.queries.room(part.width * kCount * kLanes)),
        weights_(scratch.weights.room(kKeys * kCount * kLanes)),
        scores_(vectors(scratch.scores.room(kKeys * kCount * kLanes))),
        sums_(vectors(scratch.sums.room(2 * part.width * kCount * kLanes))), more_(sums_ + part.width * kCount) {
    for (Floats& one : top_) one = Floats{} + kLowest;
    std::fill_n(sums_, part.width * kCount, Floats{});
  }

  template <typename T>
  void run(Head<const T> query, Rows<Kind> keys, Columns<Kind> values, Head<T> out) {
    pack_queries<Kind, kCount>(part_, query, queries_);
    for (int64_t from = part_.first; from < part_.end; from += kKeys) {
      const int64_t count = std::min(kKeys, part_.end - from);
      score(keys, from, count);
      if (scoring_.bias || part_.window > 0) adjust(from, count);
      weigh(count);
      add(values, from, count);
    }
    put(out);
  }

 private:
  static Floats* vectors(float* of) { return reinterpret_cast<Floats*>(of); }

  void score(Rows<Kind> keys, int64_t from, int64_t count) {
    const int64_t tiles = (count + kKeyHeight - 1) / kKeyHeight;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = from + count * t / tiles, end = from + count * (t + 1) / tiles;
      tile_of_rows<Kind, kCount, 0, kKeyHeight>(keys.part(first - part_.first, end - part_.first), queries_, part_.width,
                                                reinterpret_cast<Sums*>(scores_ + (first - from) * kCount), kCount);
    }
  }

  // What goes beyond a score times its scale. Of keys outside the window scores are -infinity.
  void adjust(int64_t from, int64_t count) {
    const Ints lanes = counted();
    const int32_t window = static_cast<int32_t>(part_.window);
    for (int64_t j = 0; j < count; ++j)
      for (int v = 0; v < kCount; ++v) {
        const int64_t behind = part_.from + v * kLanes - (from + j);
        Floats& score = scores_[j * kCount + v];
        if (scoring_.bias) score = score * scoring_.scale + load(scoring_.bias + behind);
        if (window > 0) {
          const Ints distance = lanes + static_cast<int32_t>(behind);
          score = (distance < window) & (distance > -window) ? score : Floats{} - INFINITY;
        }
      }
  }

  // Scores to weights that are not yet divided by their sum; what is known of former keys comes to the same scale.
  void weigh(int64_t count) {
    constexpr float kLog2OfE = 1.44269504088896341f;
    const float scale = scoring_.bias ? kLog2OfE : scoring_.scale * kLog2OfE;
    Floats highest[kCount];
    for (Floats& one : highest) one = Floats{} - INFINITY;
    for (int64_t j = 0; j < count; ++j)
      for (int v = 0; v < kCount; ++v) highest[v] = larger(scores_[j * kCount + v], highest[v]);
    for (int v = 0; v < kCount; ++v) {
      const Floats top = larger(highest[v] * scale, top_[v]);
      shrink_[v] = power<false>(top_[v] - top);
      total_[v] *= shrink_[v];
      top_[v] = top;
    }
    for (int64_t j = 0; j < count; j += Kind::kGroup)
      for (int v = 0; v < kCount; ++v) {
        Floats group[Kind::kGroup] = {};
        for (int64_t one = 0; one < Kind::kGroup && j + one < count; ++one) {
          group[one] = power<std::is_same_v<Value, Brain>>(scores_[(j + one) * kCount + v] * scale - top_[v]);
          total_[v] += group[one];
        }
        Kind::store_groups(weights_ + (j * kCount + v * Kind::kGroup) * kLanes, group);
      }
  }

  void add(Columns<Kind> values, int64_t from, int64_t count) {
    for (int64_t c = 0; c < part_.width; c += kHeight)
      tile<Kind, kCount, 0, kHeight>(Columns<Kind>{values.at(c, from - part_.first), values.stride}, weights_, count,
                                     reinterpret_cast<Sums*>(more_ + c * kCount), kCount, nullptr);
    for (int64_t c = 0; c < part_.width; ++c)
      for (int v = 0; v < kCount; ++v) {
        Floats& sum = sums_[c * kCount + v];
        sum = sum * shrink_[v] + more_[c * kCount + v];
      }
  }

  // The sums divided by their weights', each query's one behind the other.
  template <typename T>
  void put(Head<T> out) {
    for (int v = 0; v < kCount; ++v) {
      const Floats per = 1.0f / total_[v];
      const int64_t first = part_.from + v * kLanes, count = std::min<int64_t>(kLanes, part_.to - first);
      for (int64_t c = 0; c < part_.width; c += kLanes) {
        Floats block[kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) block[lane] = sums_[(c + lane) * kCount + v] * per;
        transpose(block);
        for (int64_t lane = 0; lane < count; ++lane) store(out.token(first + lane) + c, block[lane]);
      }
    }
  }

  Part part_;
  Scoring scoring_;
  Value *queries_, *weights_;
  // A vector for each of kCount: of every key, of every column of the values, and of the same for the latest keys alone.
  Floats *scores_, *sums_, *more_;
  // Of the scores in powers of two the highest, of the weights the sum, and by what a higher score shrinks what was before.
  Floats top_[kCount], total_[kCount] = {}, shrink_[kCount];
};

template <class Kind, typename T>
void attend(const Part& part, Head<const T> query, Head<const T> key, Head<const T> value, Head<T> out,
            const Scoring& scoring, Scratch<Kind>& scratch) {
  const Rows<Kind> keys = keys_of<Kind>(part, key, scratch.keys);
  const Columns<Kind> values = values_of<Kind>(part, value, scratch.values);
  const int64_t vectors = (part.queries() + kLanes - 1) / kLanes, groups = (vectors + kColumns - 1) / kColumns;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = vectors * group / groups, end = vectors * (group + 1) / groups;
    Part some = part;
    some.from = part.from + first * kLanes;
    some.to = std::min(part.to, part.from + end * kLanes);
    const auto of = [&](auto count) { Together<Kind, count()>(some, scoring, scratch).run(query, keys, values, out); };
    if (end - first == 1) of(std::integral_constant<int, 1>());
    if (end - first == 2) of(std::integral_constant<int, 2>());
    if constexpr (kColumns == 3)
      if (end - first == 3) of(std::integral_constant<int, 3>());
  }
}

}  // namespace sluice
