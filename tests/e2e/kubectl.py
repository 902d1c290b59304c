"""What a person does with kubectl, as functions: the end-to-end tests look at the cluster only through it."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class KubectlError(AssertionError):
    """kubectl exited non-zero; the message holds what it printed."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl bound to one cluster and one namespace."""

    binary: Path
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 60) -> str:
        """Runs kubectl and returns what it printed.

        Raises:
            KubectlError: It exited non-zero.
        """
        done = subprocess.run(
            self._command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def refusal(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl, expects it to be refused, and returns the sentence that it printed."""
        try:
            printed = self.run(*arguments, stdin=stdin)
        except KubectlError as error:
            return str(error)
        raise AssertionError(f"kubectl {' '.join(arguments)} was accepted: {printed}")

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def apply(self, *documents: dict[str, Any]) -> None:
        """Applies documents as `kubectl apply -f -` would."""
        self.run(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}),
        )

    def eventually(
        self, look: Callable[[], Any], is_right: Callable[[Any], bool], *, within_seconds: float, what: str
    ) -> Any:
        """Looks once a second until it is right; fails with the last thing seen."""
        deadline = time.monotonic() + within_seconds
        while True:
            try:
                seen = look()
                if is_right(seen):
                    return seen
                last: object = seen
            except KubectlError as error:
                last = error
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {within_seconds:.0f} s; last seen: {last}")
            time.sleep(1)

    @contextlib.contextmanager
    def port_forward(self, target: str, local_port: int, remote_port: int) -> Iterator[None]:
        """Forwards a loopback port for as long as the block runs."""
        forward = subprocess.Popen(
            self._command("port-forward", target, f"{local_port}:{remote_port}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert forward.stdout is not None
            first_line = forward.stdout.readline()
            assert first_line.startswith("Forwarding from"), first_line + forward.stdout.read()
            yield
        finally:
            forward.terminate()
            forward.communicate(timeout=10)

    def _command(self, *arguments: str) -> list[str]:
        return [
            str(self.binary),
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={self.namespace}",
            *arguments,
        ]


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a resource's status; an unknown one where it does not stand there yet."""
    conditions = resource.get("status", {}).get("conditions") or []
    return next(
        (c for c in conditions if c["type"] == kind),
        {"type": kind, "status": "Unknown", "reason": "", "message": ""},
    )
