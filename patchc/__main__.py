"""``python -m patchc``: the same as the ``patchc`` command."""

from patchc.cli.entry import main

main()
