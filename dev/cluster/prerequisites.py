"""What the machine must have, checked before anything is done, and all of it said at once."""

import os
from collections.abc import Callable, Iterable

from dev import packages
from dev.cluster.binaries import find, go_problem
from dev.cluster.layout import Mode
from dev.cluster.versions import Program
from dev.console import DevError

_PACKAGES = {
    Mode.FULL: {**packages.FOR_CLUSTER, **packages.FOR_IMAGES},
    Mode.CONTROL_PLANE: {"openssl": "openssl"},
}


def check(mode: Mode, programs: Iterable[Program]) -> None:
    """Looks for root, Debian packages and, where something has to be built, Go.

    Raises:
        DevError: Something is missing; each line of the message names one thing and what mends it.
    """
    questions: list[Callable[[], str | None]] = [lambda: _packages_problem(mode)]
    if mode is Mode.FULL:
        questions.append(root_problem)
    if not all(find(program).exists() for program in programs):
        questions.append(go_problem)
    problems = [problem for question in questions if (problem := question())]
    if problems:
        raise DevError("this machine lacks:\n" + "\n".join(f"  - {problem}" for problem in problems))


def root_problem() -> str | None:
    """A node makes network namespaces, mounts and cgroups."""
    return None if os.geteuid() == 0 else "root, for a node: use sudo, or --mode control-plane, which needs none"


def _packages_problem(mode: Mode) -> str | None:
    try:
        packages.ensure(_PACKAGES[mode])
    except DevError as error:
        return str(error)
    return None
