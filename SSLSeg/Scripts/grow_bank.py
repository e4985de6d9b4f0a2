"""Add the slices of labelled cases to a template bank, or make it: ``grow_bank.py CHOICES.json``.

In a process of its own, since it computes. The choices: cohort and bank (paths), accepted (ids of the cases whose label
is a reviewed pseudo-label), weights, device. Prints how many templates the bank has then.
"""

import json
import sys
from pathlib import Path


def main(path):
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.vessa import load_features
    from SSLSegLib.vessa.bank_check import require_whole
    from SSLSegLib.vessa.bank_files import BANK, refuse_other_files
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

    choices = json.loads(Path(path).read_text(encoding="utf-8"))
    folder, accepted = Path(choices["bank"]), set(choices["accepted"])
    refuse_other_files(folder)
    bank = None
    if (folder / BANK).is_file():
        require_whole(folder)
        bank = TemplateBank.load(folder)
    cohort = Cohort.load(Path(choices["cohort"]))
    features = load_features(None, choices["weights"], None, choices["device"])
    if bank is not None:
        bank.require_features(features.name)
    for origin in ("label", "accepted"):
        cases = [case for case in cohort.labelled if (case.id in accepted) == (origin == "accepted")]
        if cases:
            slices = CohortSlices(cohort, cases)
            new = TemplateBank.of(slices, features, chosen_slices(slices), origin=origin)
            bank = new if bank is None else bank.grown(new)
    bank.save(folder)
    print(len(bank))


if __name__ == "__main__":
    from SSLSegLib.errors import SSLSegError

    try:
        main(sys.argv[1])
    except SSLSegError as error:
        sys.exit(str(error))
