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

// The next layer; 0, or 1 where memory is short.
int64_t sluice_add_layer(AnyEncoder* encoder, const sluice::LayerSource* layer) {
  try {
    encoder->add_layer(*layer);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// ids and positions: (tokens,), within their tables; ends: (rows + 1,), from 0 on; states: (tokens, width), the result.
// 0, or 1 where memory is short. One call at a time.
int64_t sluice_run(AnyEncoder* encoder, const int64_t* ids, const int64_t* positions, const int64_t* ends, int64_t rows,
                   int64_t threads, float* states) {
  try {
    encoder->run(ids, positions, ends, rows, static_cast<int>(threads), states);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

void sluice_close(AnyEncoder* encoder) { delete encoder; }
}
