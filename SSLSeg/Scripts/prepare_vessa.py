"""Index the labelled slices of a cohort and describe a VESSA run on it: ``prepare_vessa.py CHOICES.json``.

In a process of its own, since it computes. The choices: cohort, bank and job (paths), source (a bank to take a copy of,
in place of the labelled slices; may be empty), weights, device, threshold, seed, report. The job is made and not run.
"""

import json
import sys
from pathlib import Path


def main(path):
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.vessa import load_features, vessa_manifest
    from SSLSegLib.vessa.bank_check import require_whole
    from SSLSegLib.vessa.options import VessaOptions
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

    choices = json.loads(Path(path).read_text(encoding="utf-8"))
    cohort, bank = Cohort.load(Path(choices["cohort"])), Path(choices["bank"])
    if choices.get("source"):  # a copy: the run stays what it was when the bank grows
        require_whole(Path(choices["source"]))
        _checked(TemplateBank.load(Path(choices["source"])), cohort).save(bank)
    else:
        features = load_features(None, choices["weights"], None, choices["device"])
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


def _checked(bank, cohort):
    """The bank, unless it lacks templates of a class."""
    from SSLSegLib.errors import CohortError

    missing = [each.name for each in cohort.classes if not bank.holds(each.name)]
    if missing:
        raise CohortError(
            f"The template bank holds no template of {', '.join(missing)}.",
            remedy="Add the cases of this scene to it (Template bank, Add cases), or untick the class.",
        )
    return bank


if __name__ == "__main__":
    from SSLSegLib.errors import SSLSegError

    try:
        main(sys.argv[1])
    except SSLSegError as error:
        sys.exit(str(error))
