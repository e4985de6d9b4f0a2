"""``slicer.packaging`` that installs nothing: it records what it was asked for, and answers as it is told to."""

import sys
import types
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

__all__ = ["PackagingFake", "make_packaging_module"]


@dataclass
class PackagingFake:
    """What a test sets and looks at.

    Attributes:
        requests: Name of the function and its arguments, in order.
        missing: Distribution names that are said to be missing although they are installed.
        decline: Whether the user is said to have declined (``pip_ensure`` then raises RuntimeError as in Slicer).
        fails_with: Raised by installing functions, for instance ``subprocess.CalledProcessError(1, "pip")``.
    """

    requests: list[tuple[str, tuple, dict]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    decline: bool = False
    fails_with: Exception | None = None

    def reset(self) -> None:
        self.requests, self.missing, self.decline, self.fails_with = [], set(), False, None


def make_packaging_module(fake: PackagingFake) -> types.ModuleType:
    """The module, also put into ``sys.modules``."""
    import slicer

    def as_list(requirements: Any) -> list[Requirement]:
        if isinstance(requirements, str):
            try:
                return [Requirement(requirements)]
            except ValueError:
                return [Requirement(each) for each in requirements.split()]
        many = requirements if isinstance(requirements, list) else [requirements]
        return [Requirement(each) if isinstance(each, str) else each for each in many]

    def load_requirements(path: str | Path) -> list[Requirement]:
        lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line and line[0] not in "#-"]

    def load_pyproject_dependencies(path: str | Path) -> list[Requirement]:
        import tomllib

        project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
        return [Requirement(each) for each in project.get("dependencies", [])]

    def pip_check(req: Any) -> bool:
        return all(satisfied(each) for each in as_list(req))

    def satisfied(requirement: Requirement) -> bool:
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        if requirement.name in fake.missing:
            return False
        try:
            return metadata.version(requirement.name) in requirement.specifier
        except metadata.PackageNotFoundError:
            return False

    def install(requirements: Any, kind: str, arguments: dict) -> None:
        fake.requests.append((kind, (requirements,), arguments))
        if fake.fails_with is not None:
            raise fake.fails_with
        for each in as_list(requirements):
            fake.missing.discard(each.name)

    def pip_ensure(requirements: Any, **options: Any) -> None:
        wanted = [each for each in as_list(requirements) if not satisfied(each)]
        if not wanted:
            fake.requests.append(("pip_ensure satisfied", (requirements,), options))
            return
        if slicer.app.testingEnabled() and options.get("skip_in_testing", True):
            fake.requests.append(("pip_ensure skipped", (requirements,), options))
            return
        if options.get("prompt_install", True) and fake.decline:
            fake.requests.append(("pip_ensure declined", (requirements,), options))
            raise RuntimeError("User declined package installation")
        install(wanted, "pip_ensure", options)

    def pip_install(requirements: Any, **options: Any) -> None:
        install(requirements, "pip_install", options)

    def pip_uninstall(requirements: Any, **options: Any) -> None:
        fake.requests.append(("pip_uninstall", (requirements,), options))

    module = sys.modules["slicer.packaging"] = types.ModuleType("slicer.packaging")
    for function in (
        load_requirements,
        load_pyproject_dependencies,
        pip_check,
        pip_ensure,
        pip_install,
        pip_uninstall,
    ):
        setattr(module, function.__name__, function)
    module.isPipInstallInProgress = lambda: False
    return module
