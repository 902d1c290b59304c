"""What a caller can catch."""

import grpc


class EmbeddingError(Exception):
    """The server's final word on a request, after every retry that it allowed.

    Attributes:
        code: The gRPC status, for example RESOURCE_EXHAUSTED when the service stayed overloaded.
        details: The server's sentence.
        attempts: How often the request was sent.
    """

    def __init__(self, code: grpc.StatusCode, details: str, attempts: int) -> None:
        super().__init__(f"{code.name} after {attempts} attempt{'s' * (attempts != 1)}: {details}")
        self.code = code
        self.details = details
        self.attempts = attempts
