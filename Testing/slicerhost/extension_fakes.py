# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Other extensions that a module may ask to install things; fakes that install nothing."""

import sys
import types
from collections.abc import Callable
from typing import Any

__all__ = ["install_nnunet_fake", "install_pytorch_fake", "remove_extension_fakes"]


def install_pytorch_fake(*, installed: bool = True, version: str = "2.13.0") -> types.ModuleType:
    """The PyTorchUtils extension; ``installations`` of the module lists what was asked for."""
    module = sys.modules["PyTorchUtils"] = types.ModuleType("PyTorchUtils")
    module.installed, module.installations, module.user_accepts = installed, [], True

    class PyTorchUtilsLogic:
        @staticmethod
        def torchInstalled() -> bool:
            return module.installed

        @property
        def torch(self) -> Any:
            import torch

            return torch

        def installTorch(
            self,
            askConfirmation: bool = False,
            forceComputationBackend: str | None = None,
            torchVersionRequirement: str | None = None,
            torchvisionVersionRequirement: str | None = None,
        ) -> Any:
            if askConfirmation and not module.user_accepts:
                return None
            module.installations.append((forceComputationBackend, torchVersionRequirement))
            module.installed = True
            return self.torch

        def uninstallTorch(self, askConfirmation: bool = False) -> None:
            module.installed = False

        def getDevice(self) -> str:
            return "cpu"

    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    module.version = version
    return module


def install_nnunet_fake(*, succeeds: bool = True) -> types.ModuleType:
    """The SlicerNNUNet extension's library; ``installations`` of the module lists what was asked for."""
    module = sys.modules["SlicerNNUNetLib"] = types.ModuleType("SlicerNNUNetLib")
    module.installations = []

    class _Signal:
        def __init__(self) -> None:
            self.slots: list[Callable] = []

        def connect(self, slot: Callable) -> None:
            self.slots.append(slot)

        def __call__(self, *arguments: Any) -> None:
            for slot in self.slots:
                slot(*arguments)

    class InstallLogic:
        def __init__(self, doAskConfirmation: bool = True) -> None:
            if doAskConfirmation:
                raise AssertionError("With confirmation this opens a raw message box, which hangs a run without a user")
            self.progressInfo = _Signal()

        def setupPythonRequirements(self, requirement: str = "nnunetv2") -> bool:
            module.installations.append(requirement)
            self.progressInfo(f"Install {requirement}")
            return succeeds  # it returns False and does not raise

        def getInstalledNNUnetVersion(self) -> str | None:
            return "2.8.1" if succeeds and module.installations else None

    module.InstallLogic = InstallLogic
    return module


def remove_extension_fakes() -> None:
    """The extensions are not installed."""
    for name in ("PyTorchUtils", "SlicerNNUNetLib"):
        sys.modules.pop(name, None)
