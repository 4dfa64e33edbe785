"""A process that judges chunks: numbers in on standard input, results out as lines of JSON.

``python -m harness.shapes.worker QEMU SEED``. It and its QEMUs end with who started it.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from harness.errors import HarnessError
from harness.shapes.builds import build_with_vfio_user
from harness.shapes.chunk_json import result_to_dict
from harness.shapes.generate import keep_files_in_cache
from harness.shapes.run import run_chunk

READY: Final = "ready"


def main(arguments: list[str]) -> int:
    """Answer until standard input ends."""
    spec, seed = arguments[0], int(arguments[1])
    keep_files_in_cache()
    try:
        qemu = build_with_vfio_user(spec)
        print(READY, flush=True)
        for line in sys.stdin:
            number, size = (int(word) for word in line.split())
            result = run_chunk(qemu, seed, number, size)
            print(json.dumps(result_to_dict(result)), flush=True)
    except HarnessError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
