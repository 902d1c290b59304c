// BERT's encoder over a packed batch: embeddings, then layers of attention and two linear layers, each followed by
// LayerNorm over the sum with its input. Sums, softmax and LayerNorm are float32 in every precision.
#pragma once

#include <omp.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "interface.h"
#include "linear.h"
#include "lookup.h"
#include "memory.h"
#include "schedule.h"
#include "sizes.h"
#include "tables.h"

namespace sluice {

class AnyEncoder {
 public:
  virtual ~AnyEncoder() = default;
  virtual void add_layer(const LayerSource& source) = 0;
  virtual Outcome run(const Call& call, int threads) = 0;
};

template <class Kind>
class Encoder : public AnyEncoder {
  using Kept = typename Kind::Kept;
  using Value = typename Kind::Value;
  // Attention is computed in what activations are kept in.
  using Attention = typename KindOf<Kept>::Type;
  // How exact an activation has to be: what is rounded to bytes next needs no more than what is to a bfloat16.
  using Result = std::conditional_t<std::is_same_v<Value, float>, float, Brain>;

  struct Layer {
    Linear<Kind> query_key_value, out, widen, narrow;
    Norm attention_norm, output_norm;
  };

  // Neighbouring tokens [from, to) of a row, and where the first of them is among those that a block computes.
  struct Run {
    int64_t row, from, to, at;
  };

  // Of one thread.
  struct Room {
    Tables<Kind> tables;
    std::vector<Run> runs;
    std::vector<int64_t> tokens;
    Scratch<Attention> attention;
  };

 public:
  // Of all layers.
  static int64_t weight_bytes(const Shape& shape) {
    using One = Linear<Kind>;
    const int64_t width = shape.width, wide = shape.intermediate;
    return shape.layers * (One::bytes(width, 3 * width) + One::bytes(width, width) + One::bytes(width, wide) +
                           One::bytes(wide, width));
  }

  explicit Encoder(const Shape& shape)
      : shape_(shape), scale_(1.0f / std::sqrt(static_cast<float>(shape.width / shape.heads))) {
    norm_ = norm(shape.gain, shape.shift);
  }

  void add_layer(const LayerSource& source) override {
    const int64_t width = shape_.width;
    const int64_t left = shape_.room - weight_bytes(shape_);
    if (std::is_same_v<Value, float> && layers_.empty() && Lookup::can(shape_, 3 * width, left))
      lookup_.emplace(arena_, shape_, norm_, source.query_key_value, 3 * width);
    const Sizes before = sizes(layers_.empty() ? norm_ : layers_.back().output_norm, width);
    const Sizes between = sizes({source.attention_gain, source.attention_shift, 0}, width);
    const LinearSource value{source.query_key_value.weight + 2 * width * width, source.query_key_value.bias + 2 * width};
    layers_.push_back({
        {arena_, source.query_key_value, before, 3 * width},
        {arena_, source.out, sizes(value, before, width), width},
        {arena_, source.widen, between, shape_.intermediate},
        {arena_, source.narrow, sizes(source.widen, between, shape_.intermediate), width},
        norm(source.attention_gain, source.attention_shift),
        norm(source.output_gain, source.output_shift),
    });
  }

  Outcome run(const Call& call, int threads) override {
    ends_.assign(1, 0);
    for (int64_t row = 0; row < call.rows; ++row) {
      if (call.lengths[row] < 1 || call.lengths[row] > shape_.positions) return kTooLong;
      ends_.push_back(ends_.back() + call.lengths[row]);
    }
    for (int64_t token = 0; token < ends_.back(); ++token)
      if (call.ids[token] < 0 || call.ids[token] >= shape_.vocabulary) return kUnknownId;
    for (int64_t row = 0; row < call.rows;) {
      // So many rows at a time that memory stays bounded whatever the batch.
      int64_t end = row + 1;
      while (end < call.rows && ends_[end + 1] - ends_[row] <= kMostTokens) ++end;
      run_some({call, ends_.data() + row, end - row, call.sums + row * shape_.width}, threads);
      row = end;
    }
    return kDone;
  }

 private:
  static constexpr int64_t kMostTokens = 4096;

  // Some rows of a call; states are what is between the layers.
  struct Batch {
    const Call& call;
    const int64_t* ends;
    int64_t rows;
    float* sums;
    int64_t tokens() const { return ends[rows] - ends[0]; }
  };

  void run_some(const Batch& batch, int threads) {
    const std::vector<Block> blocks = cut(batch.ends, batch.rows, threads);
    int64_t most = 0;
    for (const Block& block : blocks) most = std::max(most, block.to - block.from);
    const int64_t stride = 3 * shape_.width + Tables<Kind>::kPad;
    for (auto& buffer : projected_) buffer.room(batch.tokens() * stride);
    rooms_.resize(std::max<size_t>(rooms_.size(), threads));
    for (Room& room : rooms_) room.tables.grow(shape_.width, shape_.intermediate, most);
    if (blocks.size() == 1)
      run_together(batch, blocks[0], threads);
    else
      run_apart(batch, blocks, threads);
  }

  // Each thread takes whole blocks.
  void run_apart(const Batch& batch, const std::vector<Block>& blocks, int threads) {
    const int64_t stages = static_cast<int64_t>(layers_.size()) + 2;
    Progress progress(blocks, stages);
#pragma omp parallel num_threads(threads)
    {
      Room& room = rooms_[omp_get_thread_num()];
      progress.run([&](int64_t stage, const Block& block) { take(stage, batch, block, room.tables, room, Share{}); });
    }
  }

  // All threads share one block: for few tokens most of the time goes into fetching weights, and each fetches its part.
  void run_together(const Batch& batch, const Block& block, int threads) {
    const int64_t stages = static_cast<int64_t>(layers_.size()) + 2;
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    {
      const Share share{omp_get_thread_num(), omp_get_num_threads(), &barrier};
      for (int64_t stage = 0; stage < stages; ++stage)
        take(stage, batch, block, rooms_[0].tables, rooms_[share.thread], share);
    }
  }

  // One stage of a block: its embeddings, a layer, or its rows' sums.
  void take(int64_t stage, const Batch& batch, const Block& block, Tables<Kind>& tables, Room& room,
            const Share& share) {
    const int64_t layers = static_cast<int64_t>(layers_.size());
    if (stage > layers) return pool(batch, block, share);
    if (stage == 0)
      embed(batch, block, tables, projected(batch, 0), share);
    else
      compute(layers_[stage - 1], layers_[stage % layers], batch, block, projected(batch, stage - 1), tables, room,
              share, stage == layers);
    if (stage < layers && (stage > 0 || !lookup_)) project(layers_[stage], block, tables, projected(batch, stage), share);
    share.meet();
  }

  // Queries, keys and values of a layer; every other layer has the same place, as no block is two layers ahead.
  Table<Kept> projected(const Batch& batch, int64_t layer) {
    const int64_t stride = 3 * shape_.width + Tables<Kind>::kPad;
    return {projected_[layer % 2].data() - batch.ends[0] * stride, stride};
  }

  void embed(const Batch& batch, const Block& block, Tables<Kind>& tables, Table<Kept> projected, const Share& share) {
    const int64_t width = shape_.width, tokens = block.to - block.from;
    const Kept* words = static_cast<const Kept*>(shape_.words);
    const int64_t from = block.from + share.from(tokens), to = block.from + share.to(tokens);
    for (int64_t token = from, row = block.first_row; token < to; ++token) {
      while (token >= batch.ends[row + 1]) ++row;
      const Kept* word = words + batch.call.ids[token] * width;
      const float* place = shape_.places + (token - batch.ends[row]) * width;
      float* state = batch.call.states + token * width;
      for (int64_t c = 0; c < width; c += kLanes) store(state + c, load(word + c) + load(place + c));
      const Moments moments = normalize(norm_, width, state, tables.normal.row(token - block.from));
      if constexpr (std::is_same_v<Value, float>)
        if (lookup_)
          lookup_->put(batch.call.ids[token], token - batch.ends[row], moments,
                       batch.call.ids[std::min(token + 1, to - 1)], projected.row(token));
    }
  }

  // The rows that begin in a block, each added up from its first token to its last whatever the blocks.
  void pool(const Batch& batch, const Block& block, const Share& share) {
    const int64_t width = shape_.width, rows = block.end_row - block.first_row;
    for (int64_t row = block.first_row + share.from(rows); row < block.first_row + share.to(rows); ++row) {
      if (batch.ends[row] < block.from) continue;
      float* sums = batch.sums + row * width;
      std::fill(sums, sums + width, 0.0f);
      for (int64_t token = batch.ends[row]; token < batch.ends[row + 1]; ++token) {
        const float weight = batch.call.weights[token];
        if (weight == 0.0f) continue;
        const float* state = batch.call.states + token * width;
        for (int64_t c = 0; c < width; c += kLanes) store(sums + c, load(sums + c) + load(state + c) * weight);
      }
    }
  }

  void project(const Layer& layer, const Block& block, Tables<Kind>& tables, Table<Kept> to, const Share& share) {
    layer.query_key_value.apply(tables, tables.normal, block.to - block.from, layer.out, share,
                                Output{[&](int64_t row) { return to.row(block.from + row); },
                                       [](Kept* at, Floats value) { store(at, value); }});
  }

  // Which tokens of a block a layer computes: all that the next one attends to, and of the last one what is pooled.
  void choose(const Batch& batch, const Block& block, Room& room, bool is_last) {
    room.runs.clear();
    room.tokens.clear();
    const float* weights = batch.call.weights;
    for (int64_t row = block.first_row; row < block.end_row; ++row) {
      int64_t from = std::max(batch.ends[row], block.from), to = std::min(batch.ends[row + 1], block.to);
      while (is_last && from < to && weights[from] == 0.0f) ++from;
      while (is_last && from < to && weights[to - 1] == 0.0f) --to;
      if (from == to) continue;
      room.runs.push_back({row, from, to, static_cast<int64_t>(room.tokens.size())});
      for (int64_t token = from; token < to; ++token) room.tokens.push_back(token);
    }
  }

  void compute(const Layer& layer, const Layer& next, const Batch& batch, const Block& block, Table<Kept> projected,
               Tables<Kind>& tables, Room& room, const Share& share, bool is_last) {
    choose(batch, block, room, is_last);
    const int64_t width = shape_.width, count = static_cast<int64_t>(room.tokens.size());
    const auto state = [&](int64_t row) { return batch.call.states + room.tokens[row] * width; };
    const Output add{state, [](float* to, Floats value) { store(to, load(to) + value); }};
    const auto settle = [&](const Norm& norm) {
      share.meet();
      for (int64_t row = share.from(count); row < share.to(count); ++row)
        normalize(norm, width, state(row), tables.normal.row(row));
    };
    attend_all(batch, projected, tables, room, share);
    layer.out.apply(tables, tables.attended, count, layer.widen, share, add);
    settle(layer.attention_norm);
    const Activation activation = static_cast<Activation>(shape_.activation);
    layer.widen.apply(tables, tables.normal, count, layer.narrow, share,
                      Output{[&](int64_t row) { return tables.wide.row(row); },
                             [&](Kept* to, Floats value) { store(to, activated<Result>(activation, value)); }});
    layer.narrow.apply(tables, tables.wide, count, next.query_key_value, share, add);
    settle(layer.output_norm);
  }

  void attend_all(const Batch& batch, Table<Kept> projected, Tables<Kind>& tables, Room& room, const Share& share) {
    const int64_t width = shape_.width, head_width = width / shape_.heads;
    const int64_t pairs = static_cast<int64_t>(room.runs.size()) * shape_.heads;
    for (int64_t pair = share.from(pairs); pair < share.to(pairs); ++pair) {
      const Run& run = room.runs[pair / shape_.heads];
      const int64_t head = pair % shape_.heads;
      const int64_t start = batch.ends[run.row], length = batch.ends[run.row + 1] - start;
      const Kept* query = projected.row(start) + head * head_width;
      // Where the row's first token would be.
      Kept* out = tables.attended.row(run.at - (run.from - start)) + head * head_width;
      const float* bias = shape_.bias;
      if (bias) bias += head * (2 * shape_.positions + kMostLanes) + shape_.positions - 1;
      attend<Attention, Kept>({run.from - start, run.to - start, 0, length, head_width, 0}, {query, projected.stride},
                              {query + width, projected.stride}, {query + 2 * width, projected.stride},
                              {out, tables.attended.stride}, {scale_, bias}, room.attention);
    }
  }

  Norm norm(const float* gain, const float* shift) {
    return {arena_.copy(gain, shape_.width), arena_.copy(shift, shape_.width), static_cast<float>(shape_.epsilon)};
  }

  Shape shape_;
  float scale_;
  Norm norm_;
  Arena arena_;
  std::optional<Lookup> lookup_;
  std::vector<Layer> layers_;
  std::vector<int64_t> ends_;
  Buffer<Kept> projected_[2];
  std::vector<Room> rooms_;
};

}  // namespace sluice
