"""Make the surfaces of segments that lie in a folder as files: ``make_surfaces.py FOLDER PARENT PARENT_START``.

In a process of its own, since Slicer's conversion keeps Python to itself. It ends with its parent.
"""

import sys
from pathlib import Path


def main(folder, parent, parent_start):
    from SSLSegLib.processes import end_with_parent

    end_with_parent(int(parent), float(parent_start), exit_code=1)
    from SSLSegLib.scene.surfaces import make_surfaces

    make_surfaces(Path(folder))


if __name__ == "__main__":
    from SSLSegLib.errors import SSLSegError

    try:
        main(*sys.argv[1:])
    except SSLSegError as error:
        sys.exit(str(error))
