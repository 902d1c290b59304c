"""Every gRPC method with what all of them share: wrapped once, as an interceptor would wrap it anew for each call."""

from collections.abc import Mapping

from sluice_server.observability.observer import RequestObserver
from sluice_server.rpc.authentication import authorized
from sluice_server.rpc.calls import ending_with_its_status
from sluice_server.rpc.core.server import CoreServer
from sluice_server.rpc.decoding import readable
from sluice_server.rpc.handlers import Handler, as_method
from sluice_server.rpc.observation import API_OF, observed
from sluice_server.security import OPEN_GRPC_SERVICES


class Methods:
    """What generated code takes for a server; the methods that it adds go to the real one.

    Args:
        server: The real one.
        token: Asked for by every service but health; None asks for none.
        observer: Told of every request.
    """

    def __init__(self, server: CoreServer, *, token: str | None, observer: RequestObserver | None) -> None:
        self._server = server
        self._token, self._observer = token, observer

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Does nothing: the same methods come by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service."""
        wrapped = {name: as_method(self._wrapped(service, name, handler)) for name, handler in handlers.items()}
        self._server.add_methods(service, wrapped)

    def _wrapped(self, service: str, name: str, handler: Handler) -> Handler:
        if service in OPEN_GRPC_SERVICES and handler.request_streaming != handler.response_streaming:
            return handler  # health's Watch, which no check concerns; of any other service nothing passes unchecked
        inside = readable(handler)
        if self._token is not None and service not in OPEN_GRPC_SERVICES:
            inside = authorized(inside, self._token)
        ending = ending_with_its_status(inside)
        api = API_OF.get(f"{service}/{name}")
        # Outermost, so that what the others refuse is seen, too.
        return ending if api is None or self._observer is None else observed(ending, api, self._observer)
