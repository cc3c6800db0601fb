"""`python -m batche` is the command `batche`."""

from __future__ import annotations

import sys

from batche.cli import main

if __name__ == "__main__":  # a spawned worker of the demo imports this module again under another name
    sys.exit(main())
