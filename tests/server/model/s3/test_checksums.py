"""What is served is what was uploaded: damage is noticed wherever the store says anything of its content."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.model.s3.checksums import LENGTH_ONLY, Check, choose, digest, even_parts
from sluice_server.model.s3.transfer import TransferLimits

from tests.server.model.s3.bucket import MIB, Bucket, content, drop, refusal
from tests.server.model.s3.proxy import Exchange

pytestmark = pytest.mark.timeout(900)  # the first build of the store's server takes minutes


def upload_parts(bucket: Bucket, data: bytes, sizes: list[int], **settings: Any) -> None:
    """A multipart upload with parts of these sizes."""
    target = {"Bucket": bucket.name, "Key": "models/tiny/model.safetensors"}
    upload = {**target, "UploadId": bucket.client.create_multipart_upload(**target, **settings)["UploadId"]}
    parts, offset = [], 0
    for number, size in enumerate(sizes, 1):
        body = data[offset : offset + size]
        algorithm = settings["ChecksumAlgorithm"]
        part = bucket.client.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        parts.append({"PartNumber": number, **{key: part[key] for key in ("ETag", f"Checksum{algorithm}")}})
        offset += size
    bucket.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


EVEN, UNEVEN = [5 * MIB, 5 * MIB, 2 * MIB], [5 * MIB, 6 * MIB, 1 * MIB]
NO_CHECKSUM = ("x-amz-checksum",)
NO_PARTS = ("x-amz-checksum", "x-amz-mp-parts-count")


@pytest.mark.parametrize(
    ("settings", "sizes", "hidden", "proof"),
    [
        ({"ChecksumAlgorithm": "CRC64NVME"}, EVEN, (), "CRC64NVME (stored)"),
        ({"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}, EVEN, (), "CRC32 (stored)"),
        ({"ChecksumAlgorithm": "CRC32C"}, EVEN, (), "CRC32C of its parts (stored)"),
        ({"ChecksumAlgorithm": "SHA256"}, EVEN, (), "SHA256 of its parts (stored)"),
        ({"ChecksumAlgorithm": "SHA1"}, UNEVEN, (), "SHA1 of its parts (stored)"),
        ({"ChecksumAlgorithm": "CRC32"}, EVEN, NO_CHECKSUM, "MD5 of its parts (ETag)"),
        ({"ChecksumAlgorithm": "CRC32"}, UNEVEN, NO_CHECKSUM, "MD5 of its parts (ETag)"),
    ],
)  # fmt: skip
def test_a_multipart_upload_is_proved_and_damage_is_noticed(
    bucket: Bucket,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    sizes: list[int],
    hidden: tuple[str, ...],
    proof: str,
) -> None:
    caplog.set_level("INFO", logger="sluice_server")
    data = os.urandom(sum(sizes))
    bucket.put("config.json", b"{}")
    upload_parts(bucket, data, sizes, **settings)
    bucket.proxy.hidden = hidden
    folder, _ = bucket.fetch(limits=TransferLimits(part_bytes=MIB, threads=4))
    assert (folder / "model.safetensors").read_bytes() == data
    assert f"'{proof}': " in caplog.text
    _rot(bucket, "model.safetensors")
    drop(folder)
    said = refusal(bucket, limits=TransferLimits(part_bytes=MIB, threads=4))
    assert re.search(
        rf"damaged, .* model\.safetensors has the {re.escape(proof)} \w+, expected \w+; upload it again", said
    )


@pytest.mark.parametrize(
    ("settings", "hidden", "proof"),
    [
        ({"ChecksumAlgorithm": "CRC64NVME"}, (), "CRC64NVME (stored)"),
        ({"ChecksumAlgorithm": "CRC32C"}, (), "CRC32C (stored)"),
        ({"ChecksumAlgorithm": "CRC32"}, (), "CRC32 (stored)"),
        ({"ChecksumAlgorithm": "SHA256"}, (), "SHA256 (stored)"),
        ({}, NO_CHECKSUM, "MD5 (ETag)"),
    ],
)
def test_a_plain_upload_is_proved_and_damage_is_noticed(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], hidden: tuple[str, ...], proof: str
) -> None:
    caplog.set_level("INFO", logger="sluice_server")
    bucket.put("config.json", b"{}", **settings)
    bucket.put("model.safetensors", b"weights", **settings)
    bucket.proxy.hidden = hidden
    folder, _ = bucket.fetch()
    assert f"{{'{proof}': 2}}" in caplog.text
    _rot(bucket, "model.safetensors")
    drop(folder)
    assert f"model.safetensors has the {proof}" in refusal(bucket)


def _rot(bucket: Bucket, name: str) -> None:
    """One bit on the store's own disk."""
    path = bucket.store.folder / bucket.name / "models" / "tiny" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("case", ["no ETag", "ETag of parts that the store does not tell"])
def test_where_nothing_proves_a_file_the_log_says_so(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level("INFO", logger="sluice_server")
    if case == "no ETag":
        folder = bucket.store.folder / bucket.name / "models" / "tiny"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    else:
        upload_parts(bucket, os.urandom(12 * MIB), EVEN, ChecksumAlgorithm="CRC32")
        bucket.proxy.hidden = NO_PARTS
    bucket.put("config.json", b"{}")
    bucket.fetch(limits=TransferLimits())
    assert "'its length alone': 1" in caplog.text


def test_what_was_damaged_on_the_way_is_fetched_once_more(bucket: Bucket, tiny: Path) -> None:
    total = bucket.upload(tiny)
    damaged: list[Exchange] = []

    def alter(exchange: Exchange, piece: bytes) -> bytes:
        if exchange.key.endswith("model.safetensors") and not damaged:
            damaged.append(exchange)
            return bytes([piece[0] ^ 1]) + piece[1:]
        return piece

    bucket.proxy.alter = alter
    folder, _ = bucket.fetch()
    assert content(folder) == content(tiny)
    assert bucket.proxy.bytes_sent == total + (tiny / "model.safetensors").stat().st_size


def test_what_is_damaged_on_the_way_every_time_is_refused_and_removed(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    bucket.proxy.alter = lambda exchange, piece: (
        bytes([piece[0] ^ 1]) + piece[1:] if "model." in exchange.key else piece
    )
    assert re.search(r"damaged, and so again when fetched anew: model\.safetensors has the CRC32", refusal(bucket))
    assert not list(bucket.cache.rglob("model.safetensors"))
    bucket.proxy.alter = lambda _, piece: piece
    assert content(bucket.fetch()[0]) == content(tiny), "another try starts clean"


ETAG = f'"{"a" * 32}"'


@pytest.mark.parametrize(
    ("head", "chosen"),
    [
        ({"ETag": ETAG, "ChecksumSHA256": "AA==", "ChecksumCRC32": "AQ=="}, Check("CRC32", "01", None, "stored")),
        ({"ETag": ETAG, "ChecksumCRC32": "AQ==-3", "ChecksumSHA256": "AA=="}, Check("SHA256", "00", None, "stored")),
        ({"ETag": ETAG, "ChecksumCRC32": "AQ==-3"}, Check("CRC32", "01", 3, "stored")),
        ({"ETag": ETAG, "ChecksumNew": "AQ=="}, Check("MD5", "a" * 32, None, "ETag")),
        ({"ETag": f'"{"a" * 32}-7"'}, Check("MD5", "a" * 32, 7, "ETag")),
        ({"ETag": ETAG, "ServerSideEncryption": "AES256"}, Check("MD5", "a" * 32, None, "ETag")),
        ({"ETag": ETAG, "ServerSideEncryption": "aws:kms"}, LENGTH_ONLY),
        ({"ETag": ETAG, "ServerSideEncryption": "aws:kms:dsse"}, LENGTH_ONLY),
        ({"ETag": ETAG, "SSECustomerAlgorithm": "AES256"}, LENGTH_ONLY),
        ({"ETag": '"0x8DB"'}, LENGTH_ONLY),
        ({}, LENGTH_ONLY),
    ],
)
def test_the_best_proof_is_chosen(head: dict[str, str], chosen: Check) -> None:
    assert choose(head) == chosen


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_even_parts_are_found_where_all_but_the_last_are_alike(sizes: list[int]) -> None:
    found = even_parts(sum(sizes), sizes[0], len(sizes))
    if all(size == sizes[0] for size in sizes[:-1]) and sizes[-1] <= sizes[0]:
        assert found == sizes
    if found is not None:
        assert sum(found) == sum(sizes)
        assert len(found) == len(sizes)
        assert max(found) == sizes[0]


@pytest.mark.parametrize(
    ("algorithm", "check_value"),
    [
        ("CRC32", "cbf43926"), ("CRC32C", "e3069283"), ("CRC64NVME", "ae8b14860a799888"),
        ("MD5", "25f9e794323b453885f5181f1b624d0b"),
    ],
)  # fmt: skip
def test_digests_have_the_published_check_values(tmp_path: Path, algorithm: str, check_value: str) -> None:
    (tmp_path / "file").write_bytes(b"123456789")
    assert digest(tmp_path / "file", algorithm, None) == check_value
