"""The objects under one s3:// address: list them, ask about them, read their bytes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from sluice_server.errors import ModelLoadError
from sluice_server.model.s3.errors import ReadInterruptedError, translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

_CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 30
# A model's folder holds some dozens; a prefix with more than this is not one.
_MOST_OBJECTS = 100_000
_CHUNK_BYTES = 1 << 20


class _Condition(TypedDict, total=False):
    IfMatch: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was listed.

    Attributes:
        key: Its whole key.
        name: The key without the prefix: its path in the model's folder.
        size: In bytes.
        etag: As the store writes it, quotes included; empty where the store keeps none.
        modified: When it was last written, ISO 8601.
    """

    key: str
    name: str
    size: int
    etag: str
    modified: str

    @property
    def version(self) -> str:
        """Changes when the content does."""
        return self.etag or self.modified


class Store:
    """One client for one address; may be used by many threads.

    Credentials, region and endpoint come from the environment, as boto3 looks for them.

    Args:
        uri: Of the folder, for messages.
        bucket: Its name.
        prefix: Empty, or ends with a slash.
        connections: Requests at once.

    Raises:
        ModelLoadError: The environment is no good, such as an unknown AWS_PROFILE.
    """

    def __init__(self, uri: str, bucket: str, prefix: str, connections: int) -> None:
        self.uri, self._bucket, self._prefix = uri, bucket, prefix
        config = Config(
            retries={"mode": "standard"},
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            max_pool_connections=connections,
            tcp_keepalive=True,
            # A range has no checksum of its own; the whole file is checked once it is there.
            response_checksum_validation="when_required",
            user_agent_extra="sluice-server",
        )
        try:
            session = boto3.session.Session()
            # The other AWS SDKs read AWS_REGION; this one knows only AWS_DEFAULT_REGION.
            region = session.region_name or os.environ.get("AWS_REGION")
            self._client: S3Client = session.client("s3", region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise ModelLoadError(f"MODEL_PATH={uri}: no client for the store: {error}") from error

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def list(self) -> list[StoredObject]:
        """All objects under the prefix; markers of folders are left out.

        Raises:
            ModelLoadError: The store cannot be reached or refuses, or there are too many for a model.
        """
        found: list[StoredObject] = []
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            ):
                for entry in page.get("Contents", []):
                    key, modified = entry["Key"], entry["LastModified"].isoformat()
                    name = key.removeprefix(self._prefix)
                    if name and not name.endswith("/"):
                        found.append(StoredObject(key, name, entry["Size"], entry.get("ETag", ""), modified))
                if len(found) > _MOST_OBJECTS:
                    raise ModelLoadError(
                        f"MODEL_PATH={self.uri}: more than {_MOST_OBJECTS} objects; expected one model's folder"
                    )
        except (BotoCoreError, ClientError) as error:
            raise translated(error, self.uri) from error
        return found

    def head(self, stored: StoredObject) -> "HeadObjectOutputTypeDef":
        """What the store knows about an object, its checksums among it.

        Raises:
            ModelLoadError: The store refuses.
            ObjectChangedError: The object is not what was listed.
            ReadInterruptedError: The store cannot be reached.
        """
        try:
            return self._client.head_object(
                Bucket=self._bucket, Key=stored.key, ChecksumMode="ENABLED", **_as_listed(stored)
            )
        except (BotoCoreError, ClientError) as error:
            raise translated(error, self.uri, stored.name) from error

    def part_size(self, stored: StoredObject, number: int) -> int | None:
        """Size of one part of a multipart upload, from 1; None where the store does not tell.

        Raises:
            ReadInterruptedError: The store cannot be reached.
        """
        try:
            said = self._client.head_object(Bucket=self._bucket, Key=stored.key, PartNumber=number)
        except ClientError:
            return None
        except BotoCoreError as error:
            raise translated(error, self.uri, stored.name) from error
        return said["ContentLength"] if "PartsCount" in said else None

    def read(self, stored: StoredObject, offset: int, length: int) -> Iterator[bytes]:
        """The bytes from offset on, in pieces of at most 1 MiB.

        Raises:
            ModelLoadError: The store refuses, or does not serve ranges.
            ObjectChangedError: The object is not what was listed.
            ReadInterruptedError: The connection was lost or fell silent.
        """
        answer = self._get(stored, f"bytes={offset}-{offset + length - 1}")
        if answer["ContentLength"] != length:
            raise ModelLoadError(
                f"MODEL_PATH={self.uri}: {stored.name}: asked for {length} bytes, the store sends "
                f"{answer['ContentLength']}; it does not serve ranges"
            )
        received = 0
        with answer["Body"]:
            while received < length:
                try:
                    chunk = answer["Body"].read(_CHUNK_BYTES)
                except (BotoCoreError, HTTPError, OSError) as error:
                    raise ReadInterruptedError(f"{stored.name}: {error}") from error
                received += len(chunk)
                yield chunk

    def _get(self, stored: StoredObject, byte_range: str) -> "GetObjectOutputTypeDef":
        try:
            return self._client.get_object(Bucket=self._bucket, Key=stored.key, Range=byte_range, **_as_listed(stored))
        except (BotoCoreError, ClientError) as error:
            raise translated(error, self.uri, stored.name) from error


def _as_listed(stored: StoredObject) -> _Condition:
    """The store refuses when the object is another one by now; one without an ETag is looked at again in the end."""
    return {"IfMatch": stored.etag} if stored.etag else {}
