// The C interface of the encoder; encoder.py is its other side.
#include "encoder.h"

#include <new>

using sluice::AnyEncoder;

namespace {

// use(kind) of a kind's number (0 float32, 1 bfloat16, 2 int8); `otherwise` where this CPU has no instructions for it.
template <class Result, class Use>
Result of_kind(int64_t kind, Result otherwise, Use use) {
  if (kind == 0) return use(sluice::Fastest{});
#ifdef __AVX512BF16__
  if (kind == 1) return use(sluice::Half{});
#endif
#ifdef __AVX512VNNI__
  if (kind == 2) return use(sluice::Byte{});
#endif
  return otherwise;
}

}  // namespace

extern "C" {

// Bytes of a value between two multiplications, and of one in the table of words: 4 is float32, 2 bfloat16. 0 where
// this CPU has no instructions for the kind.
int64_t sluice_kept_bytes(int64_t kind) {
  return of_kind<int64_t>(kind, 0, [](auto one) { return sizeof(typename decltype(one)::Kept); });
}

// What the weights of all layers will take; 0 where this CPU has no instructions for the kind.
int64_t sluice_weight_bytes(int64_t kind, const sluice::Shape* shape) {
  return of_kind<int64_t>(kind, 0, [&](auto one) { return sluice::Encoder<decltype(one)>::weight_bytes(*shape); });
}

// Null where this CPU has no instructions for the kind, or memory is short.
AnyEncoder* sluice_open(int64_t kind, const sluice::Shape* shape) {
  try {
    return of_kind<AnyEncoder*>(kind, nullptr, [&](auto one) { return new sluice::Encoder<decltype(one)>(*shape); });
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// The next layer; the number of an Outcome.
int64_t sluice_add_layer(AnyEncoder* encoder, const sluice::LayerSource* layer) {
  try {
    encoder->add_layer(*layer);
    return sluice::kDone;
  } catch (const std::bad_alloc&) {
    return sluice::kNoMemory;
  }
}

// The number of an Outcome. One call at a time.
int64_t sluice_run(AnyEncoder* encoder, const sluice::Call* call, int64_t threads) {
  try {
    return encoder->run(*call, static_cast<int>(threads));
  } catch (const std::bad_alloc&) {
    return sluice::kNoMemory;
  }
}

void sluice_close(AnyEncoder* encoder) { delete encoder; }
}
