"""What section 5 says about methods, presets and guides. No Qt."""

from slicer.i18n import tr as _

__all__ = ["guide_label", "method_label", "plot_title", "preset_label", "purpose"]


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
