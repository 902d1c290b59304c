"""A model inside the engine: its weights packed once, a batch of any size computed in memory that stays."""

import ctypes
import weakref

import torch

from sluice_server.model.native.architecture import Architecture, Layer

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
# What activations and the table of words are kept in, by what is multiplied.
_KEPT = {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16, torch.int8: torch.bfloat16}


class _Linear(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    """LayerSource in encoder.h."""

    _fields_ = (
        ("query_key_value", _Linear), ("out", _Linear), ("widen", _Linear), ("narrow", _Linear),
        ("attention_norm", _Linear), ("output_norm", _Linear),
    )  # fmt: skip


class _Shape(ctypes.Structure):
    """Shape in encoder.h."""

    _fields_ = (
        ("width", ctypes.c_int64), ("heads", ctypes.c_int64), ("intermediate", ctypes.c_int64),
        ("activation", ctypes.c_int64), ("epsilon", ctypes.c_double), ("words", ctypes.c_void_p),
        ("places", ctypes.c_void_p), ("norm", _Linear),
    )  # fmt: skip


class NativeEncoder:
    """A packed forward; called by one thread at a time.

    Args:
        library: See library.load.
        model: What is computed. Its table of words stays in use, the rest is copied.
        threads: OpenMP's.
        dtype: Of what is multiplied: the model's own, or int8, which rounds weights by columns and activations by rows.

    Raises:
        RuntimeError: The CPU lacks the instructions, or there is no memory.
    """

    def __init__(
        self, library: ctypes.CDLL, model: Architecture, threads: int, dtype: torch.dtype | None = None
    ) -> None:
        dtype = dtype or model.dtype
        self._library, self._threads = library, threads
        self._words, self._places = model.words.to(_KEPT[dtype]), model.places
        self._states = torch.empty(0, model.width)
        shape = _Shape(
            model.width, model.heads, model.intermediate, model.activation, model.epsilon, self._words.data_ptr(),
            model.places.data_ptr(), _linear(model.norm),
        )  # fmt: skip
        self._handle = library.sluice_open(_KINDS[dtype], ctypes.byref(shape))
        if not self._handle:
            raise RuntimeError(f"the engine does not compute {dtype} on this CPU")
        weakref.finalize(self, library.sluice_close, self._handle)
        for layer in model.layers():
            self._check(library.sluice_add_layer(self._handle, ctypes.byref(_layer(layer))))

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Token states.

        Args:
            ids: int64 (tokens,).
            positions: int64 (tokens,).
            cu_seqlens: int64 (rows + 1,).

        Returns:
            float32 (tokens, width); the next call writes over it.

        Raises:
            IndexError: An id or a position is outside its table.
            RuntimeError: There is no memory.
        """
        for name, given, table in (("id", ids, self._words), ("position", positions, self._places)):
            # numpy's, as torch's would wait for a second thread to find them.
            least, most = int(given.numpy().min()), int(given.numpy().max())
            if least < 0 or most >= len(table):
                raise IndexError(f"{name}s {least} to {most}: expected 0 to {len(table) - 1}")
        tokens = len(ids)
        if len(self._states) < tokens:
            self._states = torch.empty(tokens, self._states.shape[1])
        # Kept by these names until the call is over.
        inputs = [tensor.to(torch.int64).contiguous() for tensor in (ids, positions, cu_seqlens)]
        rows = len(cu_seqlens) - 1
        addresses = (tensor.data_ptr() for tensor in inputs)
        self._check(self._library.sluice_run(self._handle, *addresses, rows, self._threads, self._states.data_ptr()))
        return self._states[:tokens]

    @staticmethod
    def _check(said: int) -> None:
        if said:
            raise RuntimeError("the engine found no memory")


def _layer(layer: Layer) -> _Layer:
    return _Layer(
        *map(_linear, (
            layer.query_key_value, layer.out, layer.widen, layer.narrow, layer.attention_norm, layer.output_norm,
        ))
    )  # fmt: skip


def _linear(pair: tuple[torch.Tensor, torch.Tensor]) -> _Linear:
    """Addresses only: the tensors must outlive it."""
    return _Linear(pair[0].data_ptr(), pair[1].data_ptr())
