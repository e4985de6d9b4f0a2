"""Write the file lists of the CMake files from what git tracks: a file that is not listed is missing in the package.

python tools/cmake_lists.py          writes them
python tools/cmake_lists.py --check  only says whether they are as they should be (exit code 1 if not)
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = {  # CMake file -> {variable: endings or names that go into it}
    "SSLSeg/CMakeLists.txt": {"MODULE_PYTHON_SCRIPTS": True, "MODULE_PYTHON_RESOURCES": False},
    "SSLSegLib/CMakeLists.txt": {"SSLSegLib_PYTHON_SCRIPTS": True, "SSLSegLib_PYTHON_RESOURCES": False},
    "Resources/CMakeLists.txt": {"SSLSegResources_FILES": False},
}
NOT_PACKAGED = ("CMakeLists.txt", "SSLSeg/Testing/")


def tracked(folder):
    """Files of a folder that git tracks, relative to it."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name]
    packaged = [name for name in names if not any(each in name for each in NOT_PACKAGED)]
    return sorted(name.removeprefix(f"{folder}/") for name in packaged if (ROOT / name).exists())


def in_cmake(path, variable):
    """The files that a CMake file lists in a variable, or None where there is no such variable."""
    found = re.search(rf"set\({variable}\n(.*?)\n?\s*\)", path.read_text(encoding="utf-8"), re.DOTALL)
    return None if found is None else found[1].split()


def expected(path, python):
    """The files that belong into a list."""
    return [name for name in tracked(str(Path(path).parent)) if name.endswith(".py") == python]


def main(arguments):
    wrong = []
    for path, variables in LISTS.items():
        for variable, python in variables.items():
            wanted = expected(path, python)
            if in_cmake(ROOT / path, variable) == wanted:
                continue
            wrong.append(f"{path}: {variable}")
            if "--check" not in arguments:
                text = (ROOT / path).read_text(encoding="utf-8")
                listed = "".join(f"  {name}\n" for name in wanted)
                text = re.sub(
                    rf"set\({variable}\n.*?\)", f"set({variable}\n{listed}  )", text, count=1, flags=re.DOTALL
                )
                (ROOT / path).write_text(text, encoding="utf-8", newline="\n")
    print("\n".join(wrong) or "The lists are complete.")
    return 1 if wrong and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
