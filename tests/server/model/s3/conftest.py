"""One object store for the session; for each test a bucket, and an environment that names it."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.model.s3.bucket import Bucket
from tests.server.model.s3.object_store import REGION, ObjectStore, running_object_store
from tests.server.model.s3.proxy import running_proxy


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    name, client = f"b-{uuid.uuid4().hex[:12]}", object_store.client()
    client.create_bucket(Bucket=name)
    with running_proxy(object_store.url) as proxy:
        for variable, value in {
            "AWS_ENDPOINT_URL_S3": proxy.url, "AWS_ACCESS_KEY_ID": object_store.access_key,
            "AWS_SECRET_ACCESS_KEY": object_store.secret_key, "AWS_REGION": REGION,
            # Nothing of the machine: no profile, and no metadata service of a cloud.
            "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "2",
        }.items():  # fmt: skip
            monkeypatch.setenv(variable, value)
        yield Bucket(name, object_store, client, proxy, tmp_path / "cache")
    client.close()


@pytest.fixture
def tiny(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("bert")
