"""A process that has torchrun imported, and forks one launcher per request.

Importing it takes longer than most runs in the tests. Requests are lines of JSON on standard input;
the answer to each is a line with the launcher's exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from torch.distributed.run import main


def launch(request: dict[str, Any]) -> int:
    """Be torchrun, as a shell would have started it; the exit code."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, request["out"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    try:
        main(request["arguments"])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = launch(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
