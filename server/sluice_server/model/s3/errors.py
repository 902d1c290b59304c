"""What a store can say no with, as sentences that name the address and what to check."""

from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as StoreConnectionError

from sluice_server.errors import ModelLoadError

_CREDENTIALS = (
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role of the pod's service account"
)
_RIGHTS = (
    "the credentials may not read it; they need s3:ListBucket on the bucket and s3:GetObject on its objects "
    "(and kms:Decrypt where these are encrypted with a key of yours)"
)
_REGION = "the bucket is in another region; set AWS_REGION"
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; check its name, AWS_ENDPOINT_URL_S3 and AWS_REGION",
    "InvalidObjectState": "it is archived; restore it first",
    "RequestTimeTooSkewed": "the clock of this machine or of the store is wrong",
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "Forbidden", "403"), _RIGHTS),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"),
                    _REGION),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException",
         "TokenRefreshRequired", "InvalidIdentityToken", "InvalidClientTokenId"),
        f"the credentials are not accepted; {_CREDENTIALS}",
    ),
}  # fmt: skip
_KINDS: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((NoCredentialsError, PartialCredentialsError), "no credentials for the store", _CREDENTIALS),
    ((CredentialRetrievalError, TokenRetrievalError), "the credentials cannot be had", _CREDENTIALS),
    (
        (StoreConnectionError, HTTPClientError),
        "the store cannot be reached",
        "check AWS_ENDPOINT_URL_S3, AWS_REGION and network policies",
    ),
)
_CHANGED = frozenset({"PreconditionFailed", "NoSuchKey", "InvalidRange", "404", "412", "416"})
_SERVER_ERROR = 500


class ObjectChangedError(Exception):
    """An object is not what was listed any more; the text names it."""


class ReadInterruptedError(Exception):
    """The store or the network gave up in the midst of an object; worth another try from there."""


def translated(error: Exception, uri: str, name: str | None = None) -> Exception:
    """What to raise instead of what boto3 raised.

    Args:
        error: A ClientError or BotoCoreError.
        uri: The model's address.
        name: Of the object that was asked for; None for a listing.

    Returns:
        ObjectChangedError or ReadInterruptedError for an object; else ModelLoadError, with a sentence.
    """
    sentence = f"MODEL_PATH={uri}: {_sentence(error)}"
    if name is None:
        return ModelLoadError(sentence)
    if _code(error) in _CHANGED:
        return ObjectChangedError(name)
    if _may_pass(error):
        return ReadInterruptedError(f"{name}: {_sentence(error)}")
    return ModelLoadError(f"MODEL_PATH={uri}: {name}: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    if isinstance(error, ClientError):
        if error.operation_name.startswith("AssumeRole"):
            return f"the role of the pod's service account cannot be taken ({error})"
        return f"{_ADVICE.get(_code(error), 'the store refuses')} ({error})"
    for kinds, what, advice in _KINDS:
        if isinstance(error, kinds):
            return f"{what} ({error}); {advice}"
    return str(error)


def _code(error: Exception) -> str:
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def _may_pass(error: Exception) -> bool:
    """Whether the next try may go well although all of boto3's own did not."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_ERROR
    return isinstance(error, StoreConnectionError | HTTPClientError)
