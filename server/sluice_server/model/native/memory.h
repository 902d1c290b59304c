// Where weights and activations lie.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "multiply.h"
#include "vectors.h"

namespace sluice {

// Memory on whole cache lines and, where the kernel gives them, large pages; let go all at once.
class Arena {
 public:
  template <typename T>
  T* take(int64_t count) {
    const size_t size = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (size > left_) {
      left_ = std::max((size + kPage - 1) / kPage * kPage, 4 * kPage);
      chunks_.emplace_back(static_cast<char*>(::operator new(left_, std::align_val_t{kPage})));
      next_ = chunks_.back().get();
      madvise(next_, left_, MADV_HUGEPAGE);
    }
    char* taken = next_;
    next_ += size;
    left_ -= size;
    return reinterpret_cast<T*>(taken);
  }
  float* copy(const float* from, int64_t count) {
    float* to = take<float>(whole_vectors(count) + kPanel);
    std::copy(from, from + count, to);
    return to;
  }

 private:
  static constexpr size_t kPage = 2 << 20;
  struct Free {
    void operator()(char* chunk) const { ::operator delete(chunk, std::align_val_t{kPage}); }
  };
  std::vector<std::unique_ptr<char, Free>> chunks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

// Memory on whole cache lines that grows as needed: a vector across two lines takes as long as two.
template <typename T>
class Buffer {
 public:
  // Room for so many; what was there before is lost when it grows.
  T* room(int64_t count) {
    if (count > count_) {
      memory_.reset();
      count_ = 0;
      memory_.reset(static_cast<T*>(::operator new(count * sizeof(T), kLine)));
      count_ = count;
    }
    return memory_.get();
  }
  T* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, kLine); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t count_ = 0;
};

// A row-major buffer whose rows do not fall on the same lines of the cache.
template <typename T>
struct Table {
  T* data = nullptr;
  int64_t stride = 0;
  T* row(int64_t index) const { return data + index * stride; }
};

}  // namespace sluice
