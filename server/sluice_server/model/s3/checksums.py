"""Is a downloaded file what the store holds? Chooses the best proof that the store offers, and computes it."""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

try:
    from awscrt import checksums as crt  # type: ignore[import-untyped]
except ImportError:  # the two checksums that need it are passed over
    crt = None

_CHUNK_BYTES = 1 << 20
_ETAG = re.compile(r'"?([0-9a-f]{32})(?:-(\d+))?"?')
_COMPOSITE = re.compile(r"([^-]+)-(\d+)")


class Hasher(Protocol):
    """What hashlib's objects and ours have in common."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""

    def digest(self) -> bytes:
        """Of all bytes so far."""


class _Crc:
    """A CRC with the manners of hashlib; big-endian, as stores write it."""

    def __init__(self, function: Callable[[bytes, int], int], width: int) -> None:
        self._function, self._width, self._value = function, width, 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width, "big")


# In the order of preference: the quickest first.
_HASHERS: dict[str, Callable[[], Hasher]] = {
    **({"CRC64NVME": lambda: _Crc(crt.crc64nvme, 8), "CRC32C": lambda: _Crc(crt.crc32c, 4)} if crt else {}),
    "CRC32": lambda: _Crc(zlib.crc32, 4),
    "SHA256": hashlib.sha256,
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA512": hashlib.sha512,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One way to prove a file.

    Attributes:
        algorithm: A key of the hashers; None where nothing but the length can be compared.
        expected: The digest, in hexadecimal.
        parts: The digest is one of the digests of so many parts; None for the whole file's.
        source: Where the digest is from, for the log.
    """

    algorithm: str | None
    expected: str
    parts: int | None
    source: str

    def __str__(self) -> str:
        if self.algorithm is None:
            return "its length alone"
        return f"{self.algorithm} of its parts ({self.source})" if self.parts else f"{self.algorithm} ({self.source})"


LENGTH_ONLY = Check(None, "", None, "length")


def choose(head: Mapping[str, Any]) -> Check:
    """The best check that the answer to HeadObject allows.

    A checksum of the whole object goes before one of its parts, a stored checksum before the ETag. The ETag is
    an MD5 only where no key of the owner encrypts the object.
    """
    stored = {name: str(head[f"Checksum{name}"]) for name in _HASHERS if head.get(f"Checksum{name}")}
    for name, text in stored.items():
        if not _COMPOSITE.fullmatch(text):
            return Check(name, _hex(text), None, "stored")
    for name, text in stored.items():
        if found := _COMPOSITE.fullmatch(text):
            return Check(name, _hex(found[1]), int(found[2]), "stored")
    etag = _ETAG.fullmatch(head.get("ETag", ""))
    if etag is None or head.get("SSECustomerAlgorithm") or "kms" in head.get("ServerSideEncryption", ""):
        return LENGTH_ONLY
    return Check("MD5", etag[1], int(etag[2]) if etag[2] else None, "ETag")


def digest(path: Path, algorithm: str, part_sizes: Sequence[int] | None) -> str:
    """Digest of a file, or of the digests of its parts, in hexadecimal."""
    with path.open("rb") as file:
        if part_sizes is None:
            return _read(file.read, _HASHERS[algorithm](), path.stat().st_size).hex()
        of_parts = _HASHERS[algorithm]()
        for size in part_sizes:
            of_parts.update(_read(file.read, _HASHERS[algorithm](), size))
        return of_parts.digest().hex()


def even_parts(size: int, first: int, parts: int) -> list[int] | None:
    """The sizes of parts that are all as large as the first but the last; None where they cannot be."""
    last = size - first * (parts - 1)
    return [first] * (parts - 1) + [last] if 0 < last <= first else None


def _read(read: Callable[[int], bytes], hasher: Hasher, size: int) -> bytes:
    while size > 0 and (chunk := read(min(size, _CHUNK_BYTES))):
        hasher.update(chunk)
        size -= len(chunk)
    return hasher.digest()


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()
