"""Time of fast relabelling against full preprocessing, and disk used per round.

python Testing/benchmarks/bench_selftraining_relabel.py [--shape 48 192 192] [--cases 4] [--configuration 3d_fullres]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIBRARY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(LIBRARY))

from SSLSegLib.cases.phantoms import make_phantom_cohort  # noqa: E402
from SSLSegLib.selftraining.dataset import export_dataset  # noqa: E402
from SSLSegLib.selftraining.disk import disk_use  # noqa: E402
from SSLSegLib.selftraining.folders import DATASET, PLANS, WorkFolder  # noqa: E402
from SSLSegLib.selftraining.options import SelfTrainingOptions  # noqa: E402
from SSLSegLib.selftraining.relabel import build_training_set  # noqa: E402
from SSLSegLib.selftraining.run import _plan  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--shape", type=int, nargs=3, default=(48, 192, 192))
    arguments.add_argument("--cases", type=int, default=4)
    arguments.add_argument("--configuration", default="3d_fullres", choices=("2d", "3d_fullres"))
    wanted = arguments.parse_args()

    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with tempfile.TemporaryDirectory(prefix="sslseg-relabel-") as scratch:
        folder = Path(scratch)
        cohort = make_phantom_cohort(
            folder / "cohort", seed=3, labelled=wanted.cases - 1, unlabelled=1, test=0, shape=tuple(wanted.shape)
        )
        _uneven_spacing(cohort)
        work = WorkFolder(folder / "work")
        keys = export_dataset(work, cohort, {})
        options = SelfTrainingOptions.of("quick", configuration=wanted.configuration)
        _plan(work, options, Path(sys.executable), lambda event, **fields: None)

        plans = PlansManager(load_json(str(work.preprocessed / DATASET / f"{PLANS}.json")))
        settings = plans.get_configuration(wanted.configuration)
        dataset = load_json(str(work.preprocessed / DATASET / "dataset.json"))
        (folder / "full").mkdir()
        began = time.perf_counter()
        for key in keys.values():
            files = dataset["dataset"][key]
            settings.preprocessor_class(verbose=False).run_case_save(
                str(folder / "full" / key), files["images"], files["label"], plans, settings, dataset
            )
        full = time.perf_counter() - began

        labels = {key: work.labels / f"{key}.nii.gz" for key in keys.values()}
        began = time.perf_counter()
        build_training_set(work, work.round(1), wanted.configuration, labels, [])
        fast = time.perf_counter() - began
        shape = " x ".join(map(str, wanted.shape))
        print(f"{wanted.cases} cases of {shape}, {wanted.configuration}:")
        print(
            f"  full preprocessing {full / wanted.cases:.2f} s a case, relabelling {fast / wanted.cases:.2f} s a case:"
        )
        print(f"  {full / fast:.1f} times faster")
        for part, size in disk_use(work).items():
            print(f"  {part}: {size / 1e6:.1f} MB before training")


def _uneven_spacing(cohort) -> None:  # type: ignore[no-untyped-def]
    """Cases of one spacing would need no resampling: give each its own."""
    import SimpleITK

    for number, case in enumerate(cohort.cases):
        known = cohort.label_path(case)
        for path in [*cohort.image_paths(case), *([known] if known else [])]:
            image = SimpleITK.ReadImage(str(path))
            image.SetSpacing(tuple(np.array(image.GetSpacing()) * (1 + 0.1 * number)))
            SimpleITK.WriteImage(image, str(path))


if __name__ == "__main__":
    main()
