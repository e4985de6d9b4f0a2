"""Try a device with one real operation and print the outcome as one line of JSON: ``check_device.py [auto|cuda|…]``."""

import json
import sys


def main(wish="auto"):
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.weights.device import resolve_device

    try:
        choice = resolve_device(wish)
        return {"device": str(choice.device), "outcome": choice.outcome}
    except SSLSegError as error:
        return {"device": None, "outcome": str(error)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:2])))
