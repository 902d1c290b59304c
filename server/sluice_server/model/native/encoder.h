// BERT's encoder over a packed batch: embeddings, then layers of attention and two linear layers, each followed by
// LayerNorm over the sum with its input. Sums, softmax and LayerNorm are float32 in every precision.
#pragma once

#include <omp.h>
#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "multiply.h"
#include "schedule.h"

namespace sluice {

// The parts of the C interface; encoder.py fills them in, and what they point to is copied where nothing else is said.
struct LinearSource {
  const float *weight, *bias;
};
struct LayerSource {
  LinearSource query_key_value, out, widen, narrow;
  const float *attention_gain, *attention_shift, *output_gain, *output_shift;
};
struct Shape {
  int64_t width, heads, intermediate, activation;
  double epsilon;
  const void* words;    // (vocabulary, width), of the kind's own type; not copied
  const float* places;  // (positions, width), of positions and the one token type; not copied
  const float *gain, *shift;
};

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

// A row-major buffer whose rows do not fall on the same lines of the cache.
template <typename T>
struct Table {
  T* data = nullptr;
  int64_t stride = 0;
  T* row(int64_t index) const { return data + index * stride; }
};

class AnyEncoder {
 public:
  virtual ~AnyEncoder() = default;
  virtual void add_layer(const LayerSource& source) = 0;
  virtual void run(const int64_t* ids, const int64_t* positions, const int64_t* ends, int64_t rows, int threads,
                   float* states) = 0;
};

template <class Kind>
class Encoder : public AnyEncoder {
  using Kept = typename Kind::Kept;
  using Value = typename Kind::Value;
  // Attention is computed in what activations are kept in.
  using Attention = typename KindOf<Kept>::Type;

  struct Layer {
    Weights<Kind> query_key_value, out, widen, narrow;
    Norm attention_norm, output_norm;
  };

  // Of one thread, for one block.
  struct Room {
    std::vector<char> memory;
    Table<Kept> normal, attended, wide;
    Scratch<Attention> attention;
    // Rows as the next multiplication takes them, where that is not as they are kept.
    std::vector<Value> operand;
    std::vector<float> scales, zeros;
  };

 public:
  explicit Encoder(const Shape& shape)
      : shape_(shape), scale_(1.0f / std::sqrt(static_cast<float>(shape.width / shape.heads))) {
    norm_ = norm(shape.gain, shape.shift);
  }

  void add_layer(const LayerSource& source) override {
    const int64_t width = shape_.width;
    layers_.push_back({
        linear(source.query_key_value, width, 3 * width),
        linear(source.out, width, width),
        linear(source.widen, width, shape_.intermediate),
        linear(source.narrow, shape_.intermediate, width),
        norm(source.attention_gain, source.attention_shift),
        norm(source.output_gain, source.output_shift),
    });
  }

  void run(const int64_t* ids, const int64_t* positions, const int64_t* ends, int64_t rows, int threads,
           float* states) override {
    for (int64_t row = 0; row < rows;) {
      // So many rows at a time that memory stays bounded whatever the batch.
      int64_t end = row + 1;
      while (end < rows && ends[end + 1] - ends[row] <= kMostTokens) ++end;
      run_some({ids, positions, ends + row, end - row, states}, threads);
      row = end;
    }
  }

 private:
  static constexpr int64_t kMostTokens = 4096;

  struct Batch {
    const int64_t *ids, *positions, *ends;
    int64_t rows;
    float* states;  // (tokens, width): what is between the layers, and in the end the result
    int64_t tokens() const { return ends[rows] - ends[0]; }
  };

  void run_some(const Batch& batch, int threads) {
    const std::vector<Block> blocks = cut(batch.ends, batch.rows, threads);
    int64_t most = 0;
    for (const Block& block : blocks) most = std::max(most, block.to - block.from);
    const int64_t stride = 3 * shape_.width + kPad;
    for (auto& buffer : projected_) {
      if (static_cast<int64_t>(buffer.size()) < batch.tokens() * stride) buffer.resize(batch.tokens() * stride);
    }
    rooms_.resize(std::max<size_t>(rooms_.size(), threads));
    for (Room& room : rooms_) grow(room, most);
    Progress progress(blocks, static_cast<int64_t>(layers_.size()) + 1);
#pragma omp parallel num_threads(threads)
    {
      Room& room = rooms_[omp_get_thread_num()];
      progress.run([&](int64_t stage, const Block& block) {
        if (stage == 0)
          embed(batch, block, room);
        else
          compute(layers_[stage - 1], batch, block, projected(batch, stage - 1), room);
        if (stage < static_cast<int64_t>(layers_.size()))
          project(layers_[stage].query_key_value, block, room, projected(batch, stage));
      });
    }
  }

  // Queries, keys and values of a layer; every other layer has the same place, as no block is two layers ahead.
  Table<Kept> projected(const Batch& batch, int64_t layer) {
    const int64_t stride = 3 * shape_.width + kPad;
    return {projected_[layer % 2].data() - batch.ends[0] * stride, stride};
  }

  void embed(const Batch& batch, const Block& block, Room& room) {
    const int64_t width = shape_.width;
    const Kept* words = static_cast<const Kept*>(shape_.words);
    for (int64_t token = block.from; token < block.to; ++token) {
      const Kept* word = words + batch.ids[token] * width;
      const float* place = shape_.places + batch.positions[token] * width;
      float* state = batch.states + token * width;
      for (int64_t c = 0; c < width; c += kLanes) store(state + c, load(word + c) + load(place + c));
      normalize(norm_, width, state, room.normal.row(token - block.from));
    }
  }

  void project(const Weights<Kind>& weights, const Block& block, Room& room, Table<Kept> to) {
    multiply<Kind>(operand(room, room.normal, block.to - block.from, weights.inputs), weights, 0, weights.panels(),
                   [&](int64_t row, int64_t column, Floats value) {
                     store(to.row(block.from + row) + column, value);
                   });
  }

  void compute(const Layer& layer, const Batch& batch, const Block& block, Table<Kept> projected, Room& room) {
    const int64_t width = shape_.width, count = block.to - block.from;
    attend_all(batch, block, projected, room);
    float* states = batch.states + block.from * width;
    const auto add = [&](int64_t row, int64_t column, Floats value) {
      float* state = states + row * width + column;
      store(state, load(state) + value);
    };
    multiply<Kind>(operand(room, room.attended, count, layer.out.inputs), layer.out, 0, layer.out.panels(), add);
    for (int64_t row = 0; row < count; ++row)
      normalize(layer.attention_norm, width, states + row * width, room.normal.row(row));
    const Activation activation = static_cast<Activation>(shape_.activation);
    multiply<Kind>(operand(room, room.normal, count, layer.widen.inputs), layer.widen, 0, layer.widen.panels(),
                   [&](int64_t row, int64_t column, Floats value) {
                     store(room.wide.row(row) + column, activated<Kept>(activation, value));
                   });
    multiply<Kind>(operand(room, room.wide, count, layer.narrow.inputs), layer.narrow, 0, layer.narrow.panels(), add);
    for (int64_t row = 0; row < count; ++row)
      normalize(layer.output_norm, width, states + row * width, room.normal.row(row));
  }

  static Rows<Kind> operand(Room& room, Table<Kept> rows, int64_t count, int64_t inputs) {
    if constexpr (std::is_same_v<Kept, Value>) {
      return {rows.data, rows.stride, count};
    } else {
      const int64_t stride = inputs + 64;
      Value* bytes = sluice::room(room.operand, count * stride);
      float *scales = sluice::room(room.scales, count), *zeros = sluice::room(room.zeros, count);
      for (int64_t row = 0; row < count; ++row)
        quantize(rows.row(row), inputs, bytes + row * stride, scales + row, zeros + row);
      return {bytes, stride, count, scales, zeros};
    }
  }

  void attend_all(const Batch& batch, const Block& block, Table<Kept> projected, Room& room) {
    const int64_t width = shape_.width, head_width = width / shape_.heads;
    for (int64_t row = block.first_row; row < block.end_row; ++row) {
      const int64_t start = batch.ends[row], length = batch.ends[row + 1] - start;
      const int64_t from = std::max(start, block.from) - start, to = std::min(start + length, block.to) - start;
      for (int64_t head = 0; head < shape_.heads; ++head) {
        const Kept* query = projected.row(start) + head * head_width;
        attend<Attention, Kept>({from, to, 0, length, head_width, 0}, {query, projected.stride},
                     {query + width, projected.stride}, {query + 2 * width, projected.stride},
                     {room.attended.row(start - block.from) + head * head_width, room.attended.stride},
                     scale_, room.attention);
      }
    }
  }

  Weights<Kind> linear(const LinearSource& source, int64_t inputs, int64_t outputs) {
    Weights<Kind> made;
    made.inputs = inputs;
    made.outputs = outputs;
    made.values = arena_.take<Value>(Weights<Kind>::size(inputs, outputs));
    made.bias = arena_.copy(source.bias, outputs);
    if constexpr (std::is_integral_v<Value>) {
      made.scales = arena_.take<float>(whole_vectors(outputs));
      made.sums = arena_.take<float>(whole_vectors(outputs));
    }
    pack<Kind>(source.weight, made);
    return made;
  }

  Norm norm(const float* gain, const float* shift) {
    return {arena_.copy(gain, shape_.width), arena_.copy(shift, shape_.width), static_cast<float>(shape_.epsilon)};
  }

  void grow(Room& room, int64_t count) {
    const int64_t narrow = shape_.width + kPad, wide = shape_.intermediate + kPad;
    const size_t size = static_cast<size_t>(count * (2 * narrow + wide)) * sizeof(Kept) + 64;
    if (room.memory.size() >= size) return;
    room.memory.resize(size);
    Kept* at = reinterpret_cast<Kept*>((reinterpret_cast<uintptr_t>(room.memory.data()) + 63) / 64 * 64);
    room.normal = {at, narrow};
    room.attended = {at + count * narrow, narrow};
    room.wide = {at + 2 * count * narrow, wide};
  }

  static constexpr int64_t kPad = 64 / sizeof(Kept);

  Shape shape_;
  float scale_;
  Norm norm_;
  Arena arena_;
  std::vector<Layer> layers_;
  std::vector<Kept> projected_[2];
  std::vector<Room> rooms_;
};

}  // namespace sluice
