# ruff: noqa: N802, N815 - the names are those of Slicer and Qt
"""What the panel asks of the logic beside the three phases: machine, weights, estimates, views. No Qt widgets."""

import shutil
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel import label_history, loading, model_use, refinement

__all__ = ["PanelLogic"]

HERE = Path(__file__).resolve().parent.parent
FLOAT = 4  # bytes


class PanelLogic:
    """Mixed into ``SSLSegLogic``."""

    _sampling = False

    # Files

    @staticmethod
    def script(name):
        return str(HERE / "Scripts" / name)

    @staticmethod
    def resource(name):
        return str(HERE / "Resources" / name)

    # Cases

    def addSequence(self, sequence):
        """The frames of a sequence as unlabelled cases. Returns the cases."""
        from SSLSegPanel.prepare import finish

        return finish(self.addSequenceSteps(sequence))

    loadSteps = staticmethod(loading.load_steps)
    addVolumesOfScene = staticmethod(loading.add_volumes_of_scene)
    addSequenceSteps = staticmethod(loading.add_sequence_steps)

    def sampleSteps(self):
        """Generate the sample scans where they are not there yet, and load them."""
        return loading.sample_steps(slicer.app.cachePath or slicer.app.temporaryPath)

    def loadSampleData(self):
        """Generate and load the sample scans. Returns their volume nodes; none where this is being done already.

        Whoever asks waits for them, as Sample Data does; the window lives meanwhile, as while that module downloads.
        """
        from SSLSegPanel.prepare import finish

        if PanelLogic._sampling:
            return []
        PanelLogic._sampling = True
        try:
            return [case.volume for case in finish(self.sampleSteps(), slicer.app.processEvents)]
        finally:
            PanelLogic._sampling = False

    def loadJobSteps(self, run):
        """Load the cases of a job that the scene lacks."""
        return loading.load_cohort_steps(run.job.manifest.checked_parameters().loaded_cohort())

    # Weights and estimates

    @staticmethod
    def weights():
        """The catalogue's SAM2 weights."""
        from SSLSegLib.weights.catalogue import load_catalogue

        return [entry for entry in load_catalogue().values() if entry.kind == "sam2"]

    @staticmethod
    def weightsPath(name, folder=""):
        """Path of a set of weights, or of a weights file given by its path.

        Raises:
            WeightsError: They are not on this computer.
        """
        from SSLSegLib.weights.store import weights_file

        return str(weights_file(name, folder or None))

    def weightsProblem(self, name, folder=""):
        """Why the weights cannot be used, or an empty text."""
        from SSLSegLib.errors import SSLSegError

        try:
            self.weightsPath(name, folder)
        except SSLSegError as error:
            return _("{problem} Press Download in 2. Method, or name the folder that holds them there.").format(
                problem=error.problem
            )
        return ""

    def estimate(self, choices, output, folder=""):
        """What a run will take: cases, frames to follow, bytes of memory and disk needed and free."""
        import psutil

        from SSLSegLib.tffs.options import TffsOptions
        from SSLSegPanel.segment_classes import segment_names

        cases = list(self.cases)
        labelled = [case for case in cases if case.role == "labelled" and case.volume]
        unlabelled = [case for case in cases if case.role == "unlabelled" and case.volume]
        classes = [name for name in segment_names(labelled) if name not in choices.ignored]
        insertions = TffsOptions(preset=choices.preset).insertions
        frames = sum(
            _slices(case) * min(insertions, _slices(case)) * len(labelled) * len(classes) for case in unlabelled
        )
        per_slice = _feature_bytes(self._configuration(choices.weights))
        voxels = sum(case.volume.GetImageData().GetNumberOfPoints() for case in (*labelled, *unlabelled))
        features = sum(_slices(case) for case in labelled) * per_slice
        disk = voxels * (FLOAT + 2) + sum(
            case.volume.GetImageData().GetNumberOfPoints() * FLOAT * (len(classes) + 3) for case in unlabelled
        )
        case_features = max((_slices(case) for case in unlabelled), default=0) * per_slice
        there = next(parent for parent in (Path(output), *Path(output).parents) if parent.exists())
        return {
            "cases": len(unlabelled),
            "frames": frames,
            "memory": 1.2e9 + case_features,
            "features": case_features,  # of the largest case: what a graphics card should hold
            "memory_free": psutil.virtual_memory().available,
            "disk": features + disk,
            "disk_free": shutil.disk_usage(there).free,
        }

    def _configuration(self, name):
        return next((entry.configuration for entry in self.weights() if entry.name == name), None)

    @staticmethod
    def expectedQuality(job):
        """The outcome of a leave-one-out job, in one sentence that does not promise too much."""
        import json

        path = job.folder / "expectation.json"
        if not path.is_file():
            return _("The estimate was not finished.")
        found = json.loads(path.read_text(encoding="utf-8"))
        means = ", ".join(f"{each['class']} {each['mean']:.2f} ± {each['sd']:.2f}" for each in found["classes"])
        return _("Expected Dice, each labelled case from the others: {means}. {warning}").format(
            means=means, warning=found["reliability"]
        )

    # Results

    @staticmethod
    def resultsByUncertainty(cases):
        """``[(case, scores or None)]`` of the cases that have a result, the one to look at first on top."""
        from SSLSegLib.errors import CaseError
        from SSLSegLib.pseudolabels.ranking import rank_by_uncertainty
        from SSLSegLib.pseudolabels.storage import read_result

        found, scores = {}, {}
        for case in cases:
            if case.result is None:
                continue
            found[case.id] = case
            try:
                scores[case.id] = read_result(case.result_folder).scores
            except (CaseError, OSError):  # the job's folder was moved or deleted: the nodes are still good
                continue
        order = [*rank_by_uncertainty(scores), *(identifier for identifier in found if identifier not in scores)]
        return [(found[identifier], scores.get(identifier)) for identifier in order]

    def showCase(self, case, opacity=0.4):
        """Show a case in the slice views: its scan, its own segmentation or result, and the uncertainty over it."""
        slicer.util.setSliceViewerLayers(
            background=case.volume,
            foreground=case.uncertainty if case.result is not None else None,
            foregroundOpacity=opacity,
            # Slices as they were acquired: the uncertain ones are found among them. No main window, no slices.
            rotateToVolumePlane=slicer.app.layoutManager() is not None,
        )
        for other in self.cases:
            for node in (other.segmentation, other.result):
                if node is not None and node.GetDisplayNode():
                    node.GetDisplayNode().SetVisibility(node is case.result or (node is case.segmentation))
        if slicer.util.mainWindow() is not None:
            slicer.util.resetSliceViews()

    @staticmethod
    def centre3D():
        if slicer.util.mainWindow() is not None:
            slicer.util.resetThreeDViews()

    # Refinement

    refinementMethods = staticmethod(refinement.known_methods)
    labelHistory = staticmethod(label_history.history)
    rollBack = staticmethod(label_history.roll_back)
    trainedModel = staticmethod(model_use.trained_round)
    exportModelSteps = staticmethod(model_use.export_steps)

    def prepareRefinement(self, run, kind="selftraining", *, preset="quick", **options):
        """The job of a refinement of a finished run, not started; ``JobRun(job).start()`` starts it.

        Options are those of :func:`SSLSegPanel.refinement.prepare`: ``rounds``,
        ``first_labels``, ``guide``, ``steps``.
        """
        return refinement.prepare(run, kind, preset=preset, device=self._device(), **options)

    def loadLabelsSteps(self, run, labels):
        """Show a state of :meth:`labelHistory` in place of unreviewed results."""
        return label_history.load_labels_steps(run, labels, self.cases)

    def applyModelSteps(self, run, volumes):
        """Segment volumes with the trained model of a run."""
        return model_use.apply_steps(run, volumes, self._device())

    # Choices of the machine, where there is Qt

    @staticmethod
    def _device():
        from SSLSegPanel.session import setting

        return setting("Device", "auto")

    @staticmethod
    def _jobFolder():
        from SSLSegPanel.session import setting

        return setting("JobFolder", "") or str(Path.home() / "SSLSeg")


def _slices(case):
    return case.volume.GetImageData().GetDimensions()[2]


def _feature_bytes(configuration):
    """Bytes of one slice's image features: three levels at a quarter, an eighth and a sixteenth of the frame."""
    size = configuration.image_size if configuration is not None else 1024
    return sum((size // scale) ** 2 * channels for scale, channels in ((4, 32), (8, 64), (16, 256))) * FLOAT
