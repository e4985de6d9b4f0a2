"""What goes wrong in self-training."""

from SSLSegLib.errors import SSLSegError

__all__ = ["SelfTrainingError"]


class SelfTrainingError(SSLSegError):
    """A round cannot be started, went wrong, or has no model yet."""
