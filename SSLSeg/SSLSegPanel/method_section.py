# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 2: method, weights, device. Choices of the machine go to Slicer's settings, others to the scene."""

import json
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.bank_section import BankSection
from SSLSegPanel.children import child_steps
from SSLSegPanel.session import Stepper, set_setting, show_error
from SSLSegPanel.weights_table import WeightsTable
from SSLSegPanel.widgets import enable, tell

__all__ = ["MethodSection"]


DEVICES = ("auto", "cuda", "mps", "cpu")
"""What the entries of the box mean, in their order."""


METHODS = ("tffs", "vessa")


class MethodSection:
    """Which network computes on what, and whether both are there."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self._filling = False
        self._speed = ""  # under which setting the speed that is being measured is remembered
        self.children = Stepper()
        ui.deviceBox.setCurrentIndex(DEVICES.index(session.device) if session.device in DEVICES else 0)
        ui.outputEdit.setCurrentPath(session.output)
        ui.weightsFolderEdit.setCurrentPath(session.weights_folder)
        ui.methodBox.connect("activated(int)", self.onMethod)
        ui.weightsBox.connect("activated(int)", self.onWeights)
        ui.downloadButton.connect("clicked(bool)", self.onDownload)
        ui.deviceBox.connect("activated(int)", self.onDevice)
        ui.checkDeviceButton.connect("clicked(bool)", self.onCheckDevice)
        ui.outputEdit.connect("currentPathChanged(QString)", self.onOutput)
        ui.weightsFolderEdit.connect("currentPathChanged(QString)", self.onWeightsFolder)
        tell(ui.deviceLabel, "")
        self.bank, self.installed = BankSection(ui, session), WeightsTable(ui, session)
        session.parameters_changed.connect(self.refresh)
        session.setup_changed.connect(self.refresh)

    def refresh(self):
        """Show the weights as they are on this computer now."""
        if not self.session.usable or self.session.parameters is None:
            return
        parameters = self.session.parameters
        self.ui.methodBox.setCurrentIndex(METHODS.index(parameters.method) if parameters.method in METHODS else 0)
        other = "" if parameters.method == "tffs" else _("Only for the method TFFS-MedSAM2.")
        enable(self.ui.presetBox, other)
        enable(self.ui.placeBox, other)
        entries = self.session.logic.weights()
        if self.ui.weightsBox.count != len(entries):
            self.ui.weightsBox.clear()
            for entry in entries:
                self.ui.weightsBox.addItem(entry.name)
        chosen = self.session.parameters.weights
        if Path(chosen).is_file():  # a file of the user's own, set from the console
            self.ui.weightsLabel.text = _("file {path}").format(path=chosen)
            self.ui.downloadButton.enabled = False
            return
        entry = next((each for each in entries if each.name == chosen), entries[0])
        self.ui.weightsBox.setCurrentText(entry.name)
        problem = self.session.logic.weightsProblem(entry.name, self.session.weights_folder)
        size = _("{n} MB").format(n=round(entry.size / 1e6)) if entry.size else _("size not published")
        state = _("not on this computer") if problem else _("ready")
        self.ui.weightsLabel.text = f"{size}, {entry.licence}: {state}"
        self.ui.weightsLabel.toolTip = problem or f"{entry.purpose}\n{entry.source}\n{entry.citation}"
        bundled = str(entry.source) == "ships with SSLSeg"
        enable(
            self.ui.downloadButton,
            _("These weights come with SSLSeg.") if bundled else "" if problem else _("They are on this computer."),
        )
        ct = self.session.parameters.modality.value == "CT"
        self.ui.windowLevelBox.enabled = self.ui.windowWidthBox.enabled = ct

    def onMethod(self, index):
        self.session.parameters.method = METHODS[index]
        self.session.parameters_changed.emit()

    def onWeights(self, index):
        self.session.parameters.weights = self.ui.weightsBox.itemText(index)
        self.session.parameters_changed.emit()

    def onDevice(self, index):
        set_setting("Device", DEVICES[index])
        tell(self.ui.deviceLabel, "")
        self.session.card_free = None
        self.session.parameters_changed.emit()

    def onOutput(self, path):
        set_setting("JobFolder", path)
        self.session.parameters_changed.emit()

    def onWeightsFolder(self, path):
        set_setting("WeightsFolder", path)
        self.installed.look()
        self.session.parameters_changed.emit()

    def onCheckDevice(self, checked=False):
        """Try the device in a child process: torch never comes into Slicer itself."""
        if self.session.compute_missing:
            tell(self.ui.deviceLabel, _("torch is not installed yet: see 7. Set-up."))
            return
        session = self.session
        arguments = [session.logic.script("check_device.py"), session.device]
        weights = session.parameters.weights
        if session.parameters.method == "tffs" and not session.logic.weightsProblem(weights, session.weights_folder):
            path = session.logic.weightsPath(weights, session.weights_folder)
            arguments += [path, session.parameters.preset.value]
        self._speed = session.speed_key  # that of what is chosen now
        self._start(arguments, self._show_device, lambda error: self._show_device(str(error)))
        tell(self.ui.deviceLabel, _("Trying …"))

    def _show_device(self, text):
        try:
            outcome = json.loads(text.strip().splitlines()[-1])
            said = outcome["outcome"]
            self.session.card_free = outcome.get("free")
            if "free" in outcome:
                free, total = (f"{outcome[name] / 1e9:.1f}" for name in ("free", "total"))
                said += " " + _("{free} of {total} GB of its memory are free.").format(free=free, total=total)
            tell(self.ui.deviceLabel, said)
            if "frame" in outcome:
                set_setting(self._speed, outcome["frame"] + outcome["attended"] * self._labelled_slices())
            self.session.parameters_changed.emit()
        except (ValueError, IndexError, KeyError):
            tell(self.ui.deviceLabel, _("The trial did not answer: {text}").format(text=text.strip()[-200:]))

    def _labelled_slices(self):
        """How many slices a labelled scan has on average: a tracked slice attends to them."""
        scans = [case.volume for case in self.session.cases.with_role("labelled") if case.volume]
        counts = [scan.GetImageData().GetDimensions()[2] for scan in scans if scan.GetImageData()]
        return sum(counts) / max(len(counts), 1)

    def onDownload(self, checked=False):
        name = self.session.parameters.weights
        entry = next(each for each in self.session.logic.weights() if each.name == name)
        size = _("{n} MB").format(n=round(entry.size / 1e6)) if entry.size else _("an unpublished number of MB")
        question = _(
            "Download {name}, {size}, from {source}?\n\nLicence: {licence} ({url})\n{notice}\nNothing is sent but the "
            "request for the file. Computing with it needs no network."
        ).format(
            name=name,
            size=size,
            source=entry.source,
            licence=entry.licence,
            url=entry.licence_url,
            notice=entry.licence_notice or "",
        )
        if not slicer.util.confirmYesNoDisplay(question, _("Download weights")):
            return
        folder = self.session.weights_folder
        arguments = ["-m", "SSLSegLib", "weights", "download", name, "--yes", *(["--folder", folder] if folder else [])]
        self._start(arguments, self._downloaded, self._not_downloaded)
        self.ui.weightsLabel.text = _("Downloading {name}, {size} …").format(name=name, size=size)

    def _downloaded(self, text):
        self.installed.look()
        self.session.parameters_changed.emit()

    def _not_downloaded(self, error):
        self.installed.look()  # what has arrived takes up room
        self.session.parameters_changed.emit()
        show_error(error, _("The weights could not be downloaded."))

    def _start(self, arguments, done, failed):
        """Run a Python child; the buttons wait for it."""

        def ended(text):
            self.ui.checkDeviceButton.enabled = True
            done(text)

        def broke(error):
            self.ui.checkDeviceButton.enabled = True
            failed(error)

        self.ui.checkDeviceButton.enabled = self.ui.downloadButton.enabled = False
        log = Path(slicer.app.temporaryPath) / "SSLSeg-child.log"
        self.children.start(child_steps(arguments, log), ended, broke)

    def close(self):
        """End what is still running."""
        self.children.stop()
        self.bank.close()
        self.installed.close()
