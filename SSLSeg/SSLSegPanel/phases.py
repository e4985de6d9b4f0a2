"""The three phases of a run, as a person types them in the Python console. No Qt."""

import time
from pathlib import Path

from slicer.i18n import tr as _

__all__ = ["ThreePhases"]


class ThreePhases:
    """Mixed into ``SSLSegLogic``: :meth:`prepare` and :meth:`publish` touch the scene, :meth:`run` does not.

    Example::

        logic = SSLSegLogic()
        run = logic.prepare(labelled={volume1: segmentation1}, unlabelled=[volume2, volume3], preset="fast")
        logic.run(run)                # in a child process; waits for it
        nodes = logic.publish(run)    # {"volume2": segmentation node, ...}

    or all three at once with :meth:`process`.
    """

    def prepare(self, labelled=None, unlabelled=None, *, folder=None, **choices):
        """Phase 1, on the main thread: write the scans as files and describe the run. Nothing is computed.

        Args:
            labelled: Volume node -> the expert's segmentation node; the scene's labelled cases by default.
            unlabelled: Volume nodes; the scene's unlabelled cases by default.
            folder: New folder for the run; a dated one in the panel's job folder by default.
            choices: See :class:`SSLSegPanel.prepare.RunChoices`: ``method`` (``tffs`` or ``vessa``), ``weights``,
                ``preset``, ``modality``, ``window``, ``threshold``, ``place``, ``seed``, ``device``, ``ignored``,
                ``paired``.

        Returns:
            A :class:`SSLSegPanel.job_run.JobRun`, not started.

        Raises:
            SSLSegError: A case cannot be used, weights are missing: the sentence says which and what to do.
        """
        from SSLSegPanel.job_run import JobRun
        from SSLSegPanel.prepare import RunChoices, finish, new_run_folder, prepare_steps

        given = [self.cases.add(volume, "labelled", node) for volume, node in (labelled or {}).items()]
        given += [self.cases.add(volume, "unlabelled") for volume in unlabelled or []]
        folder = Path(folder) if folder else new_run_folder(self._jobFolder())
        job = finish(prepare_steps(given or list(self.cases), RunChoices(**choices), folder))
        self.getParameterNode().jobFolder = str(job.folder)
        return JobRun(job)

    def run(self, run, progress=None):
        """Phase 2, in a child process: compute, and wait for it.

        Args:
            run: From :meth:`prepare`, or ``JobRun.open(folder)``; also a refinement,
                ``JobRun(logic.prepareRefinement(run))``.
            progress: Called with the run's progress a few times a second.

        Returns:
            ``finished`` or ``cancelled``.

        Raises:
            SSLSegError: The run failed, with the reason. Finished cases are kept; calling again resumes.
        """
        from SSLSegLib.errors import JobError

        run.start()
        while run.poll():
            if progress is not None:
                progress(run.progress)
            time.sleep(0.1)
        if run.progress.ended == "failed":
            raise JobError(run.progress.message or _("The run failed."), remedy=run.progress.remedy or None)
        return run.progress.ended

    def publish(self, run):
        """Phase 3, on the main thread: show the finished results in the scene.

        Returns:
            Case name -> segmentation node, for every case of the scene that has a result.
        """
        from SSLSegPanel.prepare import finish
        from SSLSegPanel.publish import finished_results, publish_result

        found = finished_results(run.job, self.cases)
        return {case.name: finish(publish_result(case, folder)) for case, folder in found}

    def process(self, labelled=None, unlabelled=None, *, folder=None, progress=None, **choices):
        """All three phases; see :meth:`prepare`, :meth:`run` and :meth:`publish`."""
        run = self.prepare(labelled, unlabelled, folder=folder, **choices)
        self.run(run, progress)
        return self.publish(run)
