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

    def estimate(self, choices, output):
        """What a run will take: cases, frames to follow at most, bytes of memory and disk needed and free."""
        import psutil

        from SSLSegLib.jobs.estimate import Costs, count_cases, estimate, regions_shown
        from SSLSegLib.scene.volumes import node_geometry
        from SSLSegLib.tffs.options import TffsOptions
        from SSLSegPanel.segment_classes import segment_names

        cases = list(self.cases)
        labelled = [case for case in cases if case.role == "labelled" and case.volume]
        unlabelled = [case for case in cases if case.role == "unlabelled" and case.volume]
        classes = [name for name in segment_names(labelled) if name not in choices.ignored]
        options = TffsOptions(preset=choices.preset, **choices.place.asked)
        configuration = self._configuration(choices.weights)
        work = count_cases(
            [node_geometry(case.volume, transform="ignore") for case in labelled],
            [node_geometry(case.volume, transform="ignore") for case in unlabelled],
            options,
            classes=len(classes),
            channels=max((len(case.volumes) for case in unlabelled), default=1),
            zoomed=configuration is not None and regions_shown(options, configuration),
        )
        size = configuration.image_size if configuration is not None else 1024
        bytes_of = {"feature_bytes": _feature_bytes(size), "template_bytes": _template_bytes(size)}
        found = estimate(work, Costs(encode=0, prompt=0, track=0, attend=0, register=0, device="cpu", **bytes_of))
        written = sum(
            volume.GetImageData().GetNumberOfPoints() * FLOAT
            for case in (*labelled, *unlabelled)
            for volume in case.volumes
        )
        there = next(parent for parent in (Path(output), *Path(output).parents) if parent.exists())
        return {
            "cases": len(unlabelled),
            "frames": work.tracked,
            "memory": found.memory,
            # Of the largest case: what a graphics card should hold.
            "features": work.largest_case * bytes_of["feature_bytes"],
            "memory_free": psutil.virtual_memory().available,
            "disk": found.disk + written,
            "disk_free": shutil.disk_usage(there).free,
        }

    def _configuration(self, weights):
        """How weights are built, by their name or path; None for a file that nothing is known of."""
        from SSLSegLib.errors import WeightsError
        from SSLSegLib.weights.sidecar import read_sidecar

        for entry in self.weights():
            if weights == entry.name or Path(weights).name == entry.relative_path:
                return entry.configuration
        try:
            beside = read_sidecar(Path(weights))
        except WeightsError:  # the run says so
            return None
        return beside.configuration if beside is not None else None

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


def _feature_bytes(size):
    """Bytes of one slice's image features: three levels at a quarter, an eighth and a sixteenth of the frame."""
    return sum((size // scale) ** 2 * channels for scale, channels in ((4, 32), (8, 64), (16, 256))) * FLOAT


def _template_bytes(size):
    """Bytes of a labelled slice's keys and values in the four layers of the memory attention."""
    return (size // 16) ** 2 * (256 + 64) * 4 * FLOAT
