"""What goes wrong, said so that the reader knows which case, what is wrong and what to do next."""

__all__ = ["CaseError", "CohortError", "JobError", "SSLSegError", "WeightsError"]


class SSLSegError(Exception):
    """An error for people: what is wrong, in which case, and the way out.

    Args:
        problem: One sentence: what is wrong.
        case_id: The case it concerns, if one.
        remedy: One sentence: what to do next.
    """

    def __init__(self, problem: str, *, case_id: str | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.case_id = case_id
        self.remedy = remedy
        where = f"Case {case_id}: " if case_id else ""
        what_next = f" What to do: {remedy}" if remedy else ""
        super().__init__(f"{where}{problem}{what_next}")

    def __reduce__(self):  # keyword arguments survive the trip through a process pool
        return _rebuild, (type(self), self.problem, self.case_id, self.remedy)


def _rebuild(kind: type["SSLSegError"], problem: str, case_id: str | None, remedy: str | None) -> "SSLSegError":
    return kind(problem, case_id=case_id, remedy=remedy)


class CaseError(SSLSegError):
    """One case cannot be read or used."""


class CohortError(SSLSegError):
    """The list of cases is wrong as a whole."""


class WeightsError(SSLSegError):
    """Model weights are missing, damaged or of another model."""


class JobError(SSLSegError):
    """A job folder cannot be started, read or resumed."""
