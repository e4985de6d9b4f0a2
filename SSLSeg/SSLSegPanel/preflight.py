"""What is missing before a run, and what it will take, in sentences. No Qt."""

from slicer.i18n import tr as _

from SSLSegPanel.bank import has_templates
from SSLSegPanel.progress import duration
from SSLSegPanel.review import review_state
from SSLSegPanel.segment_classes import segment_names

__all__ = ["estimate_text", "missing_for_run"]


def missing_for_run(session):
    """What keeps a run from starting, one sentence each."""
    found = []
    if session.light_missing or session.compute_missing:
        return [_("Install what is missing in 7. Set-up.")]
    cases = list(session.cases)
    labelled = [case for case in cases if case.role == "labelled"]
    if not labelled:
        found.append(_("Add at least one labelled case."))
    if not any(case.role == "unlabelled" for case in cases):
        found.append(_("Add at least one unlabelled case."))
    for case in cases:
        problem = "" if case.role == "test" else case.problem()
        if problem:
            found.append(f"{case.name}: {problem}")
    channels = {
        len(case.volumes): case.name for case in cases if case.role in ("labelled", "unlabelled") and case.volume
    }
    if len(channels) > 1:
        sentence = _("All cases need the same channels: “{name}” has {n}, “{other}” {m}.")
        (n, name), (m, other) = sorted(channels.items())[:2]
        found.append(sentence.format(name=name, n=n, other=other, m=m))
    ignored = dict(session.parameters.ignoredSegments)  # Slicer's own has a get() without a default
    if labelled and not [name for name in segment_names(cases) if not ignored.get(name, False)]:
        found.append(_("Tick at least one class."))
    else:
        for case in labelled:
            if not case.problem() and all(ignored.get(name, False) for name in segment_names([case])):
                sentence = _("{name}: Its segmentation has none of the ticked classes: tick one, or ignore the case.")
                found.append(sentence.format(name=case.name))
    problem = session.logic.weightsProblem(session.parameters.weights, session.weights_folder)
    if problem:
        found.append(problem)
    if session.parameters.method == "vessa" and session.bank:
        if not has_templates(session.bank):
            found.append(_("The template bank is empty: add cases to it in 2. Method, or clear its folder."))
        elif session.bank_problem:
            found.append(session.bank_problem)
    return found


def _is_reviewed(case):
    return case.result is not None and review_state(case.result) in ("editing", "accepted", "corrected")


def estimate_text(session, choices, speed):
    """What the run will take, in one or two sentences; ``speed`` in seconds a slice, 0 before the first run."""
    if session.parameters.method != "tffs":
        # What a slice costs depends on how many templates are like it, which only the run finds out.
        text = _(
            "{n} cases, each slice from the labelled slices that are most like it. Time, memory and disk are not "
            "estimated for this method."
        )
        return text.format(n=len(session.cases.with_role("unlabelled"))) + _of_reviewed(session)
    estimate = session.logic.estimate(choices, session.output)
    took = (
        _("about {time}").format(time=duration(speed * estimate["frames"]))
        if speed
        else _("time unknown before the first run with these weights (Check in 2. Method measures it)")
    )
    text = _("{cases} cases, up to {frames} slices to track: {time}; {memory} GB of memory, {disk} GB of disk.").format(
        cases=estimate["cases"],
        frames=f"{estimate['frames']:,}",
        time=took,
        memory=f"{estimate['memory'] / 1e9:.1f}",
        disk=f"{max(estimate['disk'], 1e8) / 1e9:.1f}",
    )
    text += _of_reviewed(session)
    if estimate["memory"] > estimate["memory_free"]:
        text += " " + _("Only {n} GB of memory are free.").format(n=f"{estimate['memory_free'] / 1e9:.1f}")
    if session.card_free is not None and estimate["features"] > session.card_free:
        free = f"{session.card_free / 1e9:.1f}"
        text += " " + _("Only {n} GB of the graphics card's memory are free: files take the rest.").format(n=free)
    if estimate["disk"] > estimate["disk_free"]:
        text += " " + _("Only {n} GB of disk are free.").format(n=f"{estimate['disk_free'] / 1e9:.1f}")
    return text


def _of_reviewed(session):
    """What happens to reviewed cases, as a sentence to add; empty where there are none."""
    reviewed = sum(_is_reviewed(case) for case in session.cases.with_role("unlabelled"))
    if not reviewed:
        return ""
    sentence = _(
        "Reviewed cases ({n}) are segmented anew, their labels stay in the scene; “Use reviewed cases as labelled” "
        "(4. Results) spares them."
    )
    return " " + sentence.format(n=reviewed)
