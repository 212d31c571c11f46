"""`python -m switchx` is the command."""

import sys

from switchx.cli.main import main

sys.exit(main())
