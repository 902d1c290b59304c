"""What a store can say no with: each a sentence that names the address and what to check."""

import re
import subprocess
import sys

import pytest
from sluice_server.errors import ModelLoadError
from sluice_server.model import s3
from sluice_server.model.s3.store import Store, StoredObject

from tests.server.model.s3.bucket import PATTERNS, Bucket, refusal

pytestmark = pytest.mark.timeout(900)  # the first build of the store's server takes minutes


def test_a_bucket_that_does_not_exist(bucket: Bucket) -> None:
    with pytest.raises(
        ModelLoadError, match=r"MODEL_PATH=s3://no-such-bucket/x: there is no such bucket; check its na"
    ):
        s3.fetch("s3://no-such-bucket/x", None, str(bucket.cache), PATTERNS, lambda *_: None)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://Not_A_Bucket!/x"])
def test_what_is_no_address(bucket: Bucket, uri: str) -> None:
    with pytest.raises(
        ModelLoadError, match=rf"MODEL_PATH={uri}: '.*' is no bucket's name; expected s3://bucket/folder"
    ):
        s3.fetch(uri, None, str(bucket.cache), PATTERNS, lambda *_: None)


def test_a_folder_with_nothing_in_it(bucket: Bucket) -> None:
    assert refusal(bucket) == f"MODEL_PATH={bucket.uri}: there is nothing under it; check the folder's name"


def test_a_folder_without_a_model_says_what_it_holds(bucket: Bucket) -> None:
    for number in range(12):
        bucket.put(f"{number:02}.txt", b"")
    assert re.search(r"no config\.json; it holds 00\.txt, 01\.txt, .*09\.txt and 2 more$", refusal(bucket))


def test_a_key_that_would_leave_the_cache_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [StoredObject(f"models/tiny/{name}", name, 1, '"x"', "") for name in ("config.json", "../../evil.json")]
    monkeypatch.setattr(Store, "list", lambda _: listed)
    assert "'models/tiny/../../evil.json' is no path of a file" in refusal(bucket)


def test_credentials_that_are_unknown_or_wrong(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert re.search(
        r"the credentials are not accepted; check AWS_ACCESS_KEY_ID.*SignatureDoesNotMatch", refusal(bucket)
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    assert re.search(r"the credentials are not accepted; .*InvalidAccessKeyId", refusal(bucket))


def test_credentials_that_may_not_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.store.create_user("someone", "someones-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "someones-secret")
    assert re.search(r"may not read it; they need s3:ListBucket .* and s3:GetObject .*AccessDenied", refusal(bucket))


def test_no_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert re.search(r"MODEL_PATH=s3://.*no credentials for the store .*; check AWS_ACCESS_KEY_ID", refusal(bucket))


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "AWS_ENDPOINT_URL_S3",
            "http://127.0.0.1:9",
            "the store cannot be reached .*127.0.0.1:9.*; check AWS_ENDPOINT_",
        ),
        ("AWS_ENDPOINT_URL_S3", "not a url", "no client for the store: Invalid endpoint: not a url"),
        ("AWS_PROFILE", "nobody", "no client for the store: The config profile .nobody. could not be found"),
    ],
)
def test_an_environment_that_is_no_good(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert re.search(f"MODEL_PATH={bucket.uri}: {sentence}", refusal(bucket))


def test_without_the_extra_the_way_to_install_it_is_told() -> None:
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from sluice_server.model import sources\n"
        "sources.fetch('s3://bucket/model', None, '/nonexistent', lambda *_: None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (
        "ModelLoadError: MODEL_PATH=s3://bucket/model: s3:// needs boto3, which is not installed; pip install"
        in done.stderr
    )
