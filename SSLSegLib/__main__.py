"""The command line: ``python -m SSLSegLib`` (or ``sslseg``). Each command's code is in ``commands/`` or in its room."""

import os

import typer

from SSLSegLib import __version__
from SSLSegLib.checkpoint.commands import train_checkpoint
from SSLSegLib.commands import cohort, demo, selftraining, ssl_medsam2, tffs, unimatch
from SSLSegLib.commands.jobs import app as jobs
from SSLSegLib.commands.shared import Commands
from SSLSegLib.commands.vessa import app as vessa
from SSLSegLib.evaluation.commands import evaluate
from SSLSegLib.weights.commands import app as weights

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    help="Labels for all scans from a few labelled ones: TFFS-MedSAM2 pseudo-labels, self-training, evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None: ...


app.add_typer(cohort.app, name="cohort")
app.add_typer(weights, name="weights")
app.add_typer(jobs, name="jobs")
app.add_typer(vessa, name="vessa")
app.command()(tffs.tffs)
app.command()(tffs.run)
app.command()(tffs.expect)
app.command()(ssl_medsam2.ssl_medsam2)
app.command()(selftraining.self_train)
app.command()(selftraining.predict)
app.command()(selftraining.export_model)
app.command()(unimatch.unimatch)
app.command()(evaluate)
app.command()(cohort.phantom)
app.command()(train_checkpoint)
app.command()(demo.demo)


def main() -> None:
    """Entry point of the console script."""
    # Threads that wait for each other must not spin: on a loaded machine they take longer to wait than to work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    app(prog_name="sslseg")


if __name__ == "__main__":
    main()
