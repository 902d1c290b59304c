// A batch cut into blocks of tokens, and threads that take them through the layers one after the other: a block waits
// only for those that hold tokens of its own rows, so no thread waits for another one's whole layer. A batch of one block
// is shared by all threads, which wait for each other at every step.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "vectors.h"

namespace sluice {

// A block is computed at once: large enough that weights are read seldom, small enough that it stays in the cache.
constexpr int64_t kBlock = 96;
// The end of a block is moved to the end of a row within this distance of it, and within a quarter of the block.
constexpr int64_t kNear = 24;

// Waits for something that another thread is about to do.
template <class Ready>
inline void wait_until(Ready ready) {
  for (int64_t spins = 1; !ready(); ++spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    // The other thread may be waiting for this very core.
    if (spins % 2048 == 0) sched_yield();
  }
}

// The tokens [from, to), which belong to the rows [first_row, end_row) and so need the blocks [first, end).
struct Block {
  int64_t from, to, first_row, end_row, first, end;
};

// ends: the rows are the tokens from each to the next.
inline std::vector<Block> cut(const int64_t* ends, int64_t rows, int64_t threads) {
  const int64_t tokens = ends[rows] - ends[0];
  int64_t count = std::max<int64_t>(1, (tokens + kBlock / 2) / kBlock);
  // One is for all threads together. As many for each thread; of many, the last few matter little.
  const bool many = count >= 8 * threads;
  if (count > 1 && !many) count = (count + threads - 1) / threads * threads;
  const int64_t near = std::min(kNear, tokens / count / 4);
  std::vector<Block> blocks;
  int64_t from = ends[0], row = 0;
  for (int64_t index = 1; index <= count && from < ends[rows]; ++index) {
    int64_t to = ends[0] + tokens * index / count;
    const int64_t* after = std::lower_bound(ends, ends + rows + 1, to);
    if (*after - to <= near && *after - to <= to - from)
      to = *after;
    else if (after > ends && to - after[-1] <= near && after[-1] - from >= to - after[-1])
      to = after[-1];
    else if (many)
      // Whole vectors of the row's tokens, as attention takes its queries.
      to -= (to - std::max(from, after[-1])) % kLanes;
    if (to <= from) continue;
    while (ends[row + 1] <= from) ++row;
    int64_t end_row = row + 1;
    while (ends[end_row] < to) ++end_row;
    blocks.push_back({from, to, row, end_row, 0, 0});
    from = to;
  }
  for (size_t index = 0; index < blocks.size(); ++index) {
    Block& block = blocks[index];
    size_t first = index, end = index + 1;
    while (first > 0 && blocks[first].from > ends[block.first_row]) --first;
    while (end < blocks.size() && blocks[end].from < ends[block.end_row]) ++end;
    block.first = static_cast<int64_t>(first);
    block.end = static_cast<int64_t>(end);
  }
  return blocks;
}

// Hands out (stage, block) in order, and knows how far each block is.
class Progress {
 public:
  Progress(const std::vector<Block>& blocks, int64_t stages)
      : blocks_(blocks), stages_(stages), done_(new std::atomic<int64_t>[blocks.size()]()) {}

  // compute(stage, block) for all of them; called by every thread.
  template <class Compute>
  void run(Compute compute) {
    const int64_t count = static_cast<int64_t>(blocks_.size());
    for (int64_t task; (task = next_.fetch_add(1)) < count * stages_;) {
      const int64_t stage = task / count;
      const Block& block = blocks_[task % count];
      // Whoever computes these took them earlier, so some thread can always go on.
      for (int64_t other = block.first; other < block.end; ++other)
        wait_until([&] { return done_[other].load(std::memory_order_acquire) >= stage; });
      compute(stage, block);
      done_[task % count].store(stage + 1, std::memory_order_release);
    }
  }

 private:
  const std::vector<Block>& blocks_;
  int64_t stages_;
  std::unique_ptr<std::atomic<int64_t>[]> done_;
  std::atomic<int64_t> next_{0};
};

// Lets nobody on before all have come.
class Barrier {
 public:
  void wait(int64_t threads) {
    const int64_t round = round_.load(std::memory_order_acquire);
    if (come_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      come_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    } else {
      wait_until([&] { return round_.load(std::memory_order_acquire) != round; });
    }
  }

 private:
  std::atomic<int64_t> come_{0}, round_{0};
};

// What a thread does of a block's work: all of it, or one of `threads` parts, which meet before each step that needs what
// the others did in the last one.
struct Share {
  int64_t thread = 0, threads = 1;
  Barrier* barrier = nullptr;
  bool is_whole() const { return !barrier; }
  int64_t from(int64_t total) const { return total * thread / threads; }
  int64_t to(int64_t total) const { return total * (thread + 1) / threads; }
  void meet() const {
    if (barrier) barrier->wait(threads);
  }
};

}  // namespace sluice
