"""What section 5 says about methods, presets, guides and first labels. No Qt."""

from slicer.i18n import tr as _

__all__ = [
    "first_labels_from",
    "first_labels_label",
    "guide_label",
    "method_label",
    "plot_title",
    "preset_label",
    "purpose",
]


def method_label(kind):
    return {"selftraining": _("Self-training (nnU-Net)"), "unimatch": _("UniMatch v2")}[kind]


def preset_label(preset):
    return {
        "quick": _("Quick: minutes on a CPU, to try it out"),
        "standard": _("Standard: hours on a graphics card"),
        "paper": _("Paper: as published, days"),
    }[preset]


def guide_label(guide):
    return {
        "tffs": _("Pseudo-labels of the run"),
        "none": _("None: its own teacher only"),
        "sam2": _("SAM 2, prompted by the teacher"),
    }[guide]


def first_labels_label(choice):
    return {
        "best": _("Best: tried on the labelled cases"),
        "given": _("Given: the pseudo-labels of the run"),
    }[choice]


def first_labels_from(choice):
    """What first labels were made from, class by class; shorter where it is the same for all."""
    from SSLSegLib.selftraining.choice import PARTS

    parts = {part: name for name, part in PARTS.items()}
    words = {"given": _("pseudo-labels"), "mean": _("mean of both"), "networks": _("networks")}
    made = {segment: words[parts[part]] for segment, part in choice.parts.items()}
    if len(set(made.values())) == 1:
        return next(iter(made.values()))
    return ", ".join(f"{segment}: {each}" for segment, each in made.items())


def purpose(kind):
    """What a refinement does, in one sentence."""
    if kind == "unimatch":
        return _(
            "Trains one network on slices of all cases, which must give the same answer on changed images; labels the "
            "unlabelled cases anew."
        )
    return _(
        "Trains nnU-Net on labelled and pseudo-labelled cases and labels the latter anew, round by round. Corrected "
        "cases count as labelled; rejected ones are left out."
    )


def plot_title(kind):
    """Title of the chart of a training."""
    return _("Training: {method}").format(method=method_label(kind))
