"""``sslseg ... | head``: who prints to a reader that has gone is not in error."""

import subprocess
import sys

import pytest

from SSLSegLib.processes import LIBRARY


def run_unread(program):
    """Run Python whose standard output nobody reads from the start."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=LIBRARY,
    ) as child:
        child.stdout.close()
        child.stdin.close()  # it has waited for this
        said = child.stderr.read().decode()
        return child.wait(), said


@pytest.mark.parametrize("printing", ["print('x' * 100_000)", "print('x')", "shared.console.print('x\\n' * 50_000)"])
def test_a_command_whose_reader_has_gone_ends_quietly(printing):
    program = f"""
import sys
import typer
from SSLSegLib.commands import shared
app = typer.Typer(cls=shared.Commands)
@app.callback()
def root(): ...
@app.command()
def talk():
    {printing}
sys.stdin.read()
sys.argv = ["sslseg", "talk"]
app()
"""
    assert run_unread(program) == (0, "")


def test_work_goes_on_when_nobody_listens_any_more():
    program = """
import sys
from SSLSegLib.commands.shared import console
from SSLSegLib.jobs.terminal import TerminalProgress
sys.stdin.read()
with TerminalProgress(console) as progress:
    for number in range(3):
        progress("stage", stage=f"{number}", total=1)
        progress("result", case=f"{number}", seconds=1.0)
        print(number, file=sys.stderr)
"""
    assert run_unread(program) == (0, "0\n1\n2\n")
