// Attention over a packed batch as an operator, for rows of tens to hundreds of tokens: one pass over all rows, heads and
// chunks of queries. The same function as packed_attention in ../attention.py, which is its reference; a rectangle per
// length costs more there than the attention itself.
#include "attention.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace sluice {
namespace {

constexpr int64_t kChunk = 128;  // queries of one task

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
    using Kind = typename KindOf<T>::Type;
    static thread_local Scratch<Kind> scratch;
#pragma omp for schedule(dynamic, 4)
    for (int64_t index = 0; index < count; ++index) {
      const Task& task = tasks[index / heads];
      const int64_t h = index % heads, to = std::min(task.length, task.from + kChunk);
      const int64_t first = window > 0 ? std::max<int64_t>(0, task.from - window + 1) : 0;
      const int64_t end = window > 0 ? std::min(task.length, to - 1 + window) : task.length;
      attend<Kind, T>({task.from, to, first, end, width, window}, head(query, h, task.start),
                      head(key, h / sharing, task.start), head(value, h / sharing, task.start),
                      Head<T>{results + (task.start * heads + h) * width, heads * width}, {scale, nullptr}, scratch);
    }
  }
}

at::Tensor packed_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& cu_seqlens, double scale, int64_t window) {
  TORCH_CHECK(query.size(2) % kMostLanes == 0, "head_dim ", query.size(2), ": expected a multiple of ", kMostLanes);
  TORCH_CHECK(query.stride(2) == 1 && key.stride(2) == 1 && value.stride(2) == 1, "expected contiguous heads");
  const auto dtype = query.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "expected float32 or bfloat16, not ", dtype);
  at::Tensor out = at::empty({query.size(1), query.size(0), query.size(2)}, query.options());
  if (dtype == at::kFloat)
    run<float>(query, key, value, cu_seqlens, static_cast<float>(scale), window, out);
  else
    run<Brain>(query, key, value, cu_seqlens, static_cast<float>(scale), window, out);
  return out;
}

}  // namespace
}  // namespace sluice

TORCH_LIBRARY_FRAGMENT(sluice_native, library) {
  library.def(
      "packed_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, float scale, int window) -> Tensor");
}

TORCH_LIBRARY_IMPL(sluice_native, CPU, library) { library.impl("packed_attention", sluice::packed_attention); }
