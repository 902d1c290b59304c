// The C interface of the encoder; encoder.py is its other side.
#include "encoder.h"

#include <new>

using sluice::AnyEncoder;

extern "C" {

// Null where this CPU has no instructions for the kind (0 float32, 1 bfloat16, 2 int8), or memory is short.
AnyEncoder* sluice_open(int64_t kind, const sluice::Shape* shape) {
  try {
    if (kind == 0) return new sluice::Encoder<sluice::Single>(*shape);
#ifdef __AVX512BF16__
    if (kind == 1) return new sluice::Encoder<sluice::Half>(*shape);
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
    if (kind == 2) return new sluice::Encoder<sluice::Byte>(*shape);
#endif
  } catch (const std::bad_alloc&) {
  }
  return nullptr;
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
