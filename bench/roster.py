"""Who may take part: everybody's name, and what it is. Pure."""

REFERENCE = "sentence-transformers float32"
NATIVE, FLOAT32 = "Sluice", "Sluice float32"
PATIENT, PADDED = "Sluice, all admitted", "Sluice, padded"
COMPILED, COMPILED_FLOAT32, COMPILED_INT8 = "packed engine", "packed engine float32", "packed engine int8"
CORAL, CORAL_FLOAT32 = "coral bfloat16", "coral float32"
RUNTIMES = ("ONNX Runtime float32", "ONNX Runtime int8", "OpenVINO float32", "OpenVINO bfloat16")
"""Those that compute an exported model."""
WHAT = {
    NATIVE: "gRPC, `DTYPE=auto`, once its fastest engine is in",
    FLOAT32: "the same with `DTYPE=float32`",
    PATIENT: "`DTYPE=auto` with `BACKPRESSURE_MAX_DRAIN_MS=60000`: whatever is asked for waits, nothing is refused",
    PADDED: "`DTYPE=auto` with `LAYOUT=padded`, as torch computes it: what a model gets that cannot be packed",
    CORAL: "gRPC; the checkpoint that it computes in bfloat16",
    CORAL_FLOAT32: "gRPC; the checkpoint that it computes in float32",
    "infinity torch": "HTTP, texts only, `--engine torch`",
    "infinity optimum": "HTTP, texts only, `--engine optimum --pooling-method mean`",
    "text-embeddings-inference": "HTTP, texts only, the one at `TEI_URL`",
    COMPILED: "Sluice's backend without the server, `DTYPE=auto`, its fastest engine; texts as they come",
    COMPILED_FLOAT32: "the same in float32",
    COMPILED_INT8: "the same with `QUANTIZATION=int8`",
    "packed engine, eager": "the same as the model is loaded",
    REFERENCE: "`encode` on texts, in a loop",
    "sentence-transformers bfloat16": "the same with bfloat16 weights",
    "ONNX Runtime float32": "all texts sorted by length; plain or fused graph, whichever is faster",
    "ONNX Runtime int8": "the same, quantized dynamically",
    "OpenVINO float32": "all texts sorted by length; 1 or 2 streams, whichever is faster",
    "OpenVINO bfloat16": "the same with bfloat16 as its precision hint",
}
NAMES = tuple(WHAT)
"""Of all who may take part, in the order in which they are shown."""
