"""A model inside the engine: its weights packed once, a batch of any size computed in memory that stays."""

import ctypes
import enum
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sluice_server.backend import Batch
from sluice_server.model.native.architecture import Architecture, Layer
from sluice_server.model.pooling import Summed

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
# What activations and the table of words are kept in, by its size.
_KEPT = {4: torch.float32, 2: torch.bfloat16}
_NO_MEMORY = "the engine found no memory"
_NO_LIMIT = 1 << 62


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
        ("activation", ctypes.c_int64), ("vocabulary", ctypes.c_int64), ("positions", ctypes.c_int64),
        ("layers", ctypes.c_int64), ("room", ctypes.c_int64),
        ("epsilon", ctypes.c_double), ("words", ctypes.c_void_p), ("places", ctypes.c_void_p),
        ("bias", ctypes.c_void_p), ("norm", _Linear),
    )  # fmt: skip


class _Call(ctypes.Structure):
    """Call in encoder.h."""

    _fields_ = (
        ("ids", ctypes.c_void_p), ("lengths", ctypes.c_void_p), ("weights", ctypes.c_void_p),
        ("rows", ctypes.c_int64), ("states", ctypes.c_void_p), ("sums", ctypes.c_void_p),
    )  # fmt: skip


class _Outcome(enum.IntEnum):
    """Outcome in encoder.h."""

    DONE = 0
    NO_MEMORY = 1
    UNKNOWN_ID = 2
    TOO_LONG = 3


class NativeEncoder:
    """Adds up the token states of rows; called by one thread at a time.

    Args:
        library: See library.load.
        model: What is computed. Its table of words stays in use, the rest is copied.
        threads: OpenMP's.
        dtype: Of what is multiplied: the model's own, or int8, which rounds weights by columns and activations by rows.
        room_bytes: That packed weights may take, at most; None where there is no limit.

    Raises:
        RuntimeError: The CPU lacks the instructions, or there is no memory.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        model: Architecture,
        threads: int,
        dtype: torch.dtype | None = None,
        room_bytes: int | None = None,
    ) -> None:
        dtype = dtype or model.dtype
        self._library, self._threads = library, threads
        kept = _KEPT.get(library.sluice_kept_bytes(_KINDS[dtype]))
        if kept is None:
            raise RuntimeError(f"this CPU has no instructions for {dtype}")
        self._places, self._bias = model.places, model.bias
        self._states = np.empty((0, model.width), dtype=np.float32)
        words_bytes = 0 if model.words.dtype == kept else model.words.numel() * kept.itemsize
        shape = _shape(model, _NO_LIMIT if room_bytes is None else room_bytes - words_bytes)
        weight_bytes = library.sluice_weight_bytes(_KINDS[dtype], ctypes.byref(shape))
        if weight_bytes > shape.room:
            raise RuntimeError(
                f"its weights take {weight_bytes + words_bytes >> 20} MiB and the memory limit leaves "
                f"{(room_bytes or 0) >> 20}; raise the limit"
            )
        self._words = model.words.to(kept)
        shape.words = self._words.data_ptr()
        self._handle = library.sluice_open(_KINDS[dtype], ctypes.byref(shape))
        if not self._handle:
            raise RuntimeError(_NO_MEMORY)
        # Not as the process ends: the device's thread may be in the middle of a batch.
        weakref.finalize(self, library.sluice_close, self._handle).atexit = False
        for layer in model.layers():
            if library.sluice_add_layer(self._handle, ctypes.byref(_layer(layer))) != _Outcome.DONE:
                raise RuntimeError(_NO_MEMORY)

    def __call__(self, batch: Batch, weights: NDArray[np.float32]) -> Summed:
        """The sum of each row's token states, each times its weight; see pooling.RowSums.

        All of it in one call: between two batches this code has left the processor's caches, and each piece of it that
        runs takes several times as long as in a loop.

        Raises:
            IndexError: An id is outside the vocabulary, or a row longer than there are positions.
            RuntimeError: There is no memory.
        """
        # Kept by these names until the call is over.
        ids = np.ascontiguousarray(batch.token_ids, dtype=np.int32)
        lengths = np.ascontiguousarray(batch.lengths, dtype=np.int32)
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        if len(self._states) < len(ids):
            self._states = np.empty((len(ids), self._states.shape[1]), dtype=np.float32)
        sums = np.empty((len(lengths), self._states.shape[1]), dtype=np.float32)
        call = _Call(
            _address(ids), _address(lengths), _address(weights), len(lengths), _address(self._states), _address(sums)
        )
        outcome = self._library.sluice_run(self._handle, ctypes.byref(call), self._threads)
        if outcome != _Outcome.DONE:
            raise self._failure(outcome, ids, lengths)
        return Summed(sums, len(ids))

    def token_states(self, tokens: int) -> NDArray[np.float32]:
        """float32 (tokens, width), of the last call's first tokens; without weight they are not the model's.

        The next call writes over them.
        """
        return self._states[:tokens]

    def _failure(self, outcome: int, ids: NDArray[np.int32], lengths: NDArray[np.int32]) -> Exception:
        if outcome == _Outcome.UNKNOWN_ID:
            return IndexError(f"ids {ids.min()} to {ids.max()}: expected 0 to {len(self._words) - 1}")
        if outcome == _Outcome.TOO_LONG:
            return IndexError(f"rows of {lengths.min()} to {lengths.max()} tokens: expected 1 to {len(self._places)}")
        return RuntimeError(_NO_MEMORY)


def _address(array: NDArray[Any]) -> int:
    """Of its data; without the objects and functions behind `array.ctypes`."""
    address: int = array.__array_interface__["data"][0]
    return address


def _shape(model: Architecture, room: int) -> _Shape:
    """Without the table of words, which may have to be copied."""
    return _Shape(
        model.width, model.heads, model.intermediate, model.activation, len(model.words), len(model.places),
        model.count, room, model.epsilon, None, model.places.data_ptr(),
        None if model.bias is None else model.bias.data_ptr(), _linear(model.norm),
    )  # fmt: skip


def _layer(layer: Layer) -> _Layer:
    return _Layer(
        *map(_linear, (
            layer.query_key_value, layer.out, layer.widen, layer.narrow, layer.attention_norm, layer.output_norm,
        ))
    )  # fmt: skip


def _linear(pair: tuple[torch.Tensor, torch.Tensor]) -> _Linear:
    """Addresses only: the tensors must outlive it."""
    return _Linear(pair[0].data_ptr(), pair[1].data_ptr())
