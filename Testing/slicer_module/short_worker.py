"""The worker of jobs, whose quick preset of self-training ends sooner; all else is as shipped."""

import sys

from SSLSegLib.jobs.worker import main
from SSLSegLib.selftraining.options import PRESETS

__all__ = ["EPOCHS"]

EPOCHS = 12

if __name__ == "__main__":
    PRESETS["quick"]["schedule"] = PRESETS["quick"]["schedule"].model_copy(update={"epochs": EPOCHS})
    sys.exit(main())
