"""Index the labelled slices of a cohort and describe a VESSA run on it: ``prepare_vessa.py CHOICES.json``.

In a process of its own, since it computes. The choices: cohort, bank and job (paths), weights, device, threshold, seed,
report. The job is made and not run.
"""

import json
import sys
from pathlib import Path


def main(path):
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.vessa import load_parts, vessa_manifest
    from SSLSegLib.vessa.options import VessaOptions
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

    choices = json.loads(Path(path).read_text(encoding="utf-8"))
    cohort, bank = Cohort.load(Path(choices["cohort"])), Path(choices["bank"])
    _model, features = load_parts(None, choices["weights"], None, choices["device"], language=False)
    slices = CohortSlices(cohort)
    TemplateBank.of(slices, features, chosen_slices(slices, None)).save(bank)
    manifest = vessa_manifest(
        cohort,
        bank,
        VessaOptions(threshold=choices["threshold"]),
        sam2=choices["weights"],
        seed=choices["seed"],
        device=choices["device"],
        report=choices["report"],
        scene=False,  # the scene at hand shows the results
    )
    Job.create(Path(choices["job"]), manifest)


if __name__ == "__main__":
    from SSLSegLib.errors import SSLSegError

    try:
        main(sys.argv[1])
    except SSLSegError as error:
        sys.exit(str(error))
