"""Try a device with one real operation and print the outcome as one line of JSON.

    check_device.py [auto|cuda|…] [WEIGHTS PRESET]

With weights, a few slices are encoded and tracked too: ``frame`` and ``attended`` are the seconds of a tracked slice
and those that each labelled slice adds which it attends to. ``free`` and ``total`` are bytes of a graphics card's
memory.
"""

import json
import sys


def main(wish="auto", weights="", preset="balanced"):
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.weights.device import resolve_device

    try:
        choice = resolve_device(wish)
        found = {"device": str(choice.device), "outcome": choice.outcome, **memory_of(choice.device)}
        return {**found, **speed_of(weights, preset, choice.device)} if weights else found
    except SSLSegError as error:
        return {"device": None, "outcome": str(error)}


def memory_of(device):
    """Free and total memory of a graphics card; nothing of another device, which shares the computer's."""
    import torch

    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"free": free, "total": total}


def speed_of(weights, preset, device):
    """What a tracked slice costs with these weights."""
    import torch

    from SSLSegLib.jobs.estimate import measure_costs
    from SSLSegLib.jobs.labelling import threads_here
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.weights.loading import load_sam2

    torch.set_num_threads(threads_here())
    model = load_sam2(weights, str(device))
    costs = measure_costs(TffsEngine(model.model, TffsOptions(preset=preset), model.device), model.image_size)
    return {"frame": costs.track, "attended": costs.attend}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4])))
