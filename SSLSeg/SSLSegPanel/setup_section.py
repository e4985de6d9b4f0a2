# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 7: what SSLSeg needs beyond Slicer, and one click to get it. On the main thread, as pip demands of Slicer."""

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.session import UNIMATCH_PACKAGES, missing_packages, show_error
from SSLSegPanel.widgets import put, stretch

__all__ = ["SetupSection"]

TORCH, NNUNET = ">=2.6", "nnunetv2>=2.8.1"
# Brought by the PyTorch extension, or asked for by sam2 and not needed.
NOT_BY_PIP = ["torch", "torchvision"]


class SetupSection:
    """Parts, their state, and the button."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        stretch(ui.setupTable, 0)
        ui.installButton.connect("clicked(bool)", self.onInstall)
        ui.refreshSetupButton.connect("clicked(bool)", lambda checked=False: session.look_at_packages())
        session.setup_changed.connect(self.refresh)

    def parts(self):
        """``(name, what for, missing packages, download size in MB)`` of each part."""
        session = self.session
        compute = [name for name in session.compute_missing if name != "torch"]
        return [
            (_("Small packages"), _("cases, review, export"), session.light_missing, 20),
            (_("torch"), _("computing (PyTorch extension)"), missing_packages(["torch"]), 900),
            (_("sam2"), _("computing and drawing"), compute, 60),
            (_("nnU-Net"), _("self-training (NNUNet extension)"), missing_packages(["nnunetv2"]), 200),
            (_("transformers"), _("UniMatch v2"), missing_packages(UNIMATCH_PACKAGES), 30),
        ]

    def refresh(self):
        """Show what is there."""
        parts = self.parts()
        self.ui.setupTable.setRowCount(len(parts))
        for row, (name, purpose, missing, size) in enumerate(parts):
            put(self.ui.setupTable, row, 0, f"{name}: {purpose}")
            put(self.ui.setupTable, row, 1, _("Missing") if missing else _("Installed"), warn=bool(missing))
            put(self.ui.setupTable, row, 2, _("about {n} MB").format(n=size) if missing else "")
        needed = [part for part in parts if part[2]]
        self.ui.installButton.enabled = bool(needed)
        self.ui.setupLabel.text = (
            _("{names} missing. Reviewing and exporting finished results needs the small packages only.").format(
                names=", ".join(part[0] for part in needed)
            )
            if needed
            else _("Everything is installed.")
        )

    def onInstall(self, checked=False):
        """Ask once, then install part by part; the first failure ends it, with its reason."""
        needed = [part for part in self.parts() if part[2]]
        line = _("{name} ({purpose}), about {size} MB")
        listed = "\n".join("• " + line.format(name=part[0], purpose=part[1], size=part[3]) for part in needed)
        question = _("Install into Slicer's Python:\n\n{listed}\n\nThis takes minutes; Slicer waits meanwhile.").format(
            listed=listed
        )
        if not slicer.util.confirmOkCancelDisplay(question, _("Install for SSLSeg")):
            return
        try:
            self.install()
        except Exception as error:
            show_error(error, _("The installation did not finish. Slicer's log (Ctrl+0) has pip's own words."))
        self.session.look_at_packages()

    def install(self):
        """Install what is missing, without asking.

        Raises:
            RuntimeError: An extension is missing, or a part could not be installed.
        """
        from slicer.packaging import load_requirements, pip_ensure

        if missing_packages(["torch"]):
            try:
                import PyTorchUtils
            except ImportError:
                raise RuntimeError(
                    _("torch is installed by the extension “PyTorch”: install it in the Extensions Manager first.")
                ) from None
            if (
                PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=TORCH)
                is None
            ):
                raise RuntimeError(_("torch was not installed."))
        requirements = load_requirements(self.session.logic.resource("requirements.txt"))
        pip_ensure(requirements, skip_packages=NOT_BY_PIP, prompt_install=False, requester="SSLSeg")
        if missing_packages(["nnunetv2"]):
            try:
                from SlicerNNUNetLib import InstallLogic
            except ImportError:
                return  # only refinement needs it, and says so
            logic = InstallLogic(doAskConfirmation=False)
            said = []
            logic.progressInfo.connect(said.append)
            if not logic.setupPythonRequirements(NNUNET):
                raise RuntimeError(_("nnU-Net was not installed: {why}").format(why=said[-1] if said else ""))
