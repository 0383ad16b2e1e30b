"""``python -m patchc``: the same as the ``patchc`` command."""

import sys

from patchc.cli.entry import main

sys.exit(main())
