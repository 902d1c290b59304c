"""`python3 -m dev.images`: builds both images and pushes them; prints their references."""

import argparse
import os

from dev import packages
from dev.console import main_guard
from dev.images.push import build_and_push, build_and_push_to


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser("python3 -m dev.images", description="Build both images and push them.")
    parser.add_argument(
        "--registry",
        default=os.environ.get("IMAGE_REGISTRY"),
        help="push there; default: $IMAGE_REGISTRY, else the local cluster's own registry",
    )
    options = parser.parse_args()
    packages.ensure(packages.FOR_IMAGES)
    references = build_and_push_to(options.registry) if options.registry else build_and_push()
    for short, reference in references.items():
        print(f"  {short}: {reference}")
    return 0


if __name__ == "__main__":
    main_guard(main)
