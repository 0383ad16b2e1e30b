"""``python -m patchc``: the same as the ``patchc`` command."""

from patchc.cli.main import main

main()
