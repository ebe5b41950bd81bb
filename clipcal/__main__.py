"""Run the command line interface with ``python -m clipcal``."""

import sys

from clipcal.cli import main

if __name__ == "__main__":
    sys.exit(main())
