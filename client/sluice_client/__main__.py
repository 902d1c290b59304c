"""`sluice-embed`, as `python -m sluice_client`."""

import sys

from sluice_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
