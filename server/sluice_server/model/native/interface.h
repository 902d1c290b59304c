// What the C interface passes; encoder.py is its other side. What pointers lead to is copied where nothing else is said.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace sluice {

struct LinearSource {
  const float *weight, *bias;
};
struct LayerSource {
  LinearSource query_key_value, out, widen, narrow;
  const float *attention_gain, *attention_shift, *output_gain, *output_shift;
};
struct Shape {
  int64_t width, heads, intermediate, activation, vocabulary, positions;
  int64_t layers, room;  // how many will be added; bytes that weights may take, at most
  double epsilon;
  const void* words;    // (vocabulary, width), of the type that sluice_kept_bytes says; not copied
  const float* places;  // (positions, width), of a row's positions from its first, and the one token type; not copied
  const float* bias;    // (heads, 2 positions + kMostLanes), of queries from positions - 1 before a key on; not copied; or null
  const float *gain, *shift;
};
// Rows one behind the other, and where results go.
struct Call {
  const int32_t *ids, *lengths;  // (tokens,), (rows,)
  const float* weights;          // (tokens,): what of each token is added to its row's sum
  int64_t rows;
  float *states, *sums;  // (tokens, width), (rows, width)
};
// What became of a call; the numbers are encoder.py's.
enum Outcome : int64_t { kDone = 0, kNoMemory = 1, kUnknownId = 2, kTooLong = 3 };

}  // namespace sluice
