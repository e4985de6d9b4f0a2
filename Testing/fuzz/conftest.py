"""Make the hostile formats importable, for these tests as for the benchmark."""

import importlib.util
import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent


def load(name: str):
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]


for each in ("hostile_guard", "hostile_bytes", "hostile_documents", "hostile_images", "hostile_weights"):
    load(each)

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("SSLSEG_FUZZ_EXAMPLES", "30")),
    deadline=None,  # the guard measures time itself
    database=None,
    derandomize="SSLSEG_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
settings.load_profile("fuzz")
