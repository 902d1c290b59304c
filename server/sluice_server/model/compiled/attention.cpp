// Attention over a packed batch, for rows of tens to hundreds of tokens: one pass over all rows, heads and chunks of
// queries, in float32 whatever the inputs are. The same function as packed_attention in ../attention.py, which is its
// reference; a rectangle per length costs more there than the attention itself.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace sluice {
namespace {

constexpr int kQueries = 6;          // computed side by side, so that each loaded key is used that often
constexpr int64_t kChunk = 128;      // queries of one task

// One head of one tensor; consecutive tokens lie `stride` elements apart.
template <typename T>
struct Head {
  T* data;
  int64_t stride;
  T* token(int64_t index) const { return data + index * stride; }
};

// Buffers of one thread, grown as needed. keys: (width, keys), transposed; values: (keys, width).
struct Scratch {
  std::vector<float> keys, values, queries, scores;
};

inline float* room(std::vector<float>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

inline int64_t whole_vectors(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// The queries [from, to) of a row, and the keys [first, end) that any of them sees.
struct Part {
  int64_t from, to, first, end, width, window;
  int64_t keys() const { return end - first; }
  int64_t padded_keys() const { return whole_vectors(keys()); }
  bool sees(int64_t query, int64_t key) const { return window <= 0 || std::abs(query - (first + key)) < window; }
};

template <typename T>
void gather(const Part& part, Head<const T> key, Head<const T> value, float* keys, float* values) {
  for (int64_t j = 0; j < part.keys(); ++j)
    for (int64_t c = 0; c < part.width; c += kLanes)
      store(values + j * part.width + c, load(value.token(part.first + j) + c));
  for (int64_t j = 0; j < part.padded_keys(); j += kLanes)
    for (int64_t c = 0; c < part.width; c += kLanes) {
      Floats block[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane)
        block[lane] = load(key.token(part.first + std::min(j + lane, part.keys() - 1)) + c);
      transpose(block);
      for (int lane = 0; lane < kLanes; ++lane) store(keys + (c + lane) * part.padded_keys() + j, block[lane]);
    }
}

void score(const Part& part, const float* queries, const float* keys, float* scores) {
  const int64_t stride = part.padded_keys();
  for (int64_t j = 0; j < stride; j += 2 * kLanes) {
    const bool two = j + kLanes < stride;
    Floats sums[kQueries][2] = {};
    for (int64_t c = 0; c < part.width; ++c) {
      const Floats near = load(keys + c * stride + j), far = two ? load(keys + c * stride + j + kLanes) : Floats{};
      for (int row = 0; row < kQueries; ++row) {
        sums[row][0] += near * queries[row * part.width + c];
        sums[row][1] += far * queries[row * part.width + c];
      }
    }
    for (int row = 0; row < kQueries; ++row) {
      store(scores + row * stride + j, sums[row][0]);
      if (two) store(scores + row * stride + j + kLanes, sums[row][1]);
    }
  }
}

// Scores to weights, not yet divided by their sum, of which the reciprocal is returned.
float weigh(const Part& part, int64_t query, float* scores) {
  for (int64_t j = 0; j < part.padded_keys(); ++j)
    if (j >= part.keys() || (part.window > 0 && !part.sees(query, j))) scores[j] = -INFINITY;
  Floats top = load(scores);
  for (int64_t j = kLanes; j < part.padded_keys(); j += kLanes) top = larger(top, load(scores + j));
  const float highest = largest(top);
  float total = 0;
  for (int64_t j = 0; j < part.padded_keys(); j += kLanes) {
    const Floats said = load(scores + j);
    const Floats weights = said == -INFINITY ? Floats{} : exponential(said - highest);
    store(scores + j, weights);
    total += sum(weights);
  }
  return 1.0f / total;
}

template <typename T>
void mix(const Part& part, int64_t query, int rows, const float* weights, const float* scales, const float* values,
         Head<T> out) {
  for (int64_t c = 0; c < part.width; c += 2 * kLanes) {
    const bool two = c + kLanes < part.width;
    Floats sums[kQueries][2] = {};
    for (int64_t j = 0; j < part.keys(); ++j) {
      const float* value = values + j * part.width + c;
      const Floats near = load(value), far = two ? load(value + kLanes) : Floats{};
      for (int row = 0; row < kQueries; ++row) {
        const float weight = weights[row * part.padded_keys() + j];
        sums[row][0] += near * weight;
        sums[row][1] += far * weight;
      }
    }
    for (int row = 0; row < rows; ++row) {
      store(out.token(query + row) + c, sums[row][0] * scales[row]);
      if (two) store(out.token(query + row) + c + kLanes, sums[row][1] * scales[row]);
    }
  }
}

template <typename T>
void attend(const Part& part, Head<const T> query, Head<const T> key, Head<const T> value, Head<T> out, float scale,
            Scratch& scratch) {
  float* keys = room(scratch.keys, part.width * part.padded_keys());
  float* values = room(scratch.values, part.width * part.keys());
  float* queries = room(scratch.queries, kQueries * part.width);
  float* scores = room(scratch.scores, kQueries * part.padded_keys());
  gather<T>(part, key, value, keys, values);
  for (int64_t i = part.from; i < part.to; i += kQueries) {
    const int rows = static_cast<int>(std::min<int64_t>(kQueries, part.to - i));
    // Where fewer are left, the last is computed again in the others' place.
    const auto of = [&](int row) { return i + std::min(row, rows - 1); };
    for (int row = 0; row < kQueries; ++row)
      for (int64_t c = 0; c < part.width; c += kLanes)
        store(queries + row * part.width + c, load(query.token(of(row)) + c) * scale);
    score(part, queries, keys, scores);
    float scales[kQueries];
    for (int row = 0; row < kQueries; ++row) scales[row] = weigh(part, of(row), scores + row * part.padded_keys());
    mix<T>(part, i, rows, scores, scales, values, out);
  }
}

struct Task {
  int64_t start, length, from;
};

template <typename T>
void run(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& cu_seqlens,
         float scale, int64_t window, at::Tensor& out) {
  const int64_t heads = query.size(0), width = query.size(2), sharing = heads / key.size(0);
  const int64_t* ends = cu_seqlens.const_data_ptr<int64_t>();
  std::vector<Task> tasks;
  for (int64_t row = 0; row + 1 < cu_seqlens.size(0); ++row)
    for (int64_t from = 0; from < ends[row + 1] - ends[row]; from += kChunk)
      tasks.push_back({ends[row], ends[row + 1] - ends[row], from});
  const auto head = [](const at::Tensor& of, int64_t index, int64_t start) {
    const T* data = static_cast<const T*>(of.const_data_ptr());
    return Head<const T>{data + index * of.stride(0) + start * of.stride(1), of.stride(1)};
  };
  T* results = static_cast<T*>(out.mutable_data_ptr());
  const int64_t count = static_cast<int64_t>(tasks.size()) * heads;
#pragma omp parallel
  {
    static thread_local Scratch scratch;
#pragma omp for schedule(dynamic, 4)
    for (int64_t index = 0; index < count; ++index) {
      const Task& task = tasks[index / heads];
      const int64_t h = index % heads, to = std::min(task.length, task.from + kChunk);
      const int64_t first = window > 0 ? std::max<int64_t>(0, task.from - window + 1) : 0;
      const int64_t end = window > 0 ? std::min(task.length, to - 1 + window) : task.length;
      attend<T>({task.from, to, first, end, width, window}, head(query, h, task.start),
                head(key, h / sharing, task.start), head(value, h / sharing, task.start),
                Head<T>{results + (task.start * heads + h) * width, heads * width}, scale, scratch);
    }
  }
}

at::Tensor packed_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& cu_seqlens, double scale, int64_t window) {
  TORCH_CHECK(query.size(2) % kLanes == 0, "head_dim ", query.size(2), ": expected a multiple of ", kLanes);
  TORCH_CHECK(query.stride(2) == 1 && key.stride(2) == 1 && value.stride(2) == 1, "expected contiguous heads");
  const auto dtype = query.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "expected float32 or bfloat16, not ", dtype);
  at::Tensor out = at::empty({query.size(1), query.size(0), query.size(2)}, query.options());
  if (dtype == at::kFloat)
    run<float>(query, key, value, cu_seqlens, static_cast<float>(scale), window, out);
  else
    run<c10::BFloat16>(query, key, value, cu_seqlens, static_cast<float>(scale), window, out);
  return out;
}

}  // namespace
}  // namespace sluice

TORCH_LIBRARY_FRAGMENT(sluice_native, library) {
  library.def(
      "packed_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, float scale, int window) -> Tensor");
}

TORCH_LIBRARY_IMPL(sluice_native, CPU, library) { library.impl("packed_attention", sluice::packed_attention); }
