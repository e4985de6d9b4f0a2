"""Finds calls of Slicer's own Python that Slicer would refuse, also on paths that no test takes.

``slicer.util`` is the real one here, so its signatures are asked. Parameter nodes are not: their dictionaries have
methods with fewer arguments than Python's.
"""

import ast
import inspect
from collections.abc import Iterator

__all__ = ["dotted", "slicer_findings"]

_ONE_ARGUMENT = {"get": "no default", "pop": "no default"}
_MAIN_THREAD = {"pip_install", "pip_ensure", "pip_uninstall"}


def slicer_findings(tree: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
    """``(node, rule, message)`` of each thing to change."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _in_a_thread(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _parameter_dictionary(node)
            yield from _utility(node)
        elif isinstance(node, ast.Attribute):
            yield from _flattened(node)


def _parameter_dictionary(node: ast.Call) -> Iterator[tuple[ast.AST, str, str]]:
    """``parameters.names.get(key, default)``: a parameter of a parameter node, not a plain dictionary."""
    function = node.func
    owner = function.value
    if function.attr not in _ONE_ARGUMENT or len(node.args) + len(node.keywords) < 2:
        return
    if isinstance(owner, ast.Attribute) and _last_name(owner.value).lower().endswith(("parameters", "parameternode")):
        yield (
            node,
            "parameter-dict",
            f"{function.attr}() of a parameter node's dictionary takes {_ONE_ARGUMENT[function.attr]}: dict(...) first",
        )


def _utility(node: ast.Call) -> Iterator[tuple[ast.AST, str, str]]:
    """``slicer.util.name(...)`` with arguments that it does not take."""
    if dotted(node.func.value) != "slicer.util":
        return
    import slicer.util

    name = node.func.attr
    function = getattr(slicer.util, name, None)
    if function is None:
        yield node, "slicer-util", f"slicer.util has no {name}"
        return
    if any(isinstance(each, ast.Starred) for each in node.args) or any(each.arg is None for each in node.keywords):
        return
    try:
        inspect.signature(function).bind(*node.args, **{each.arg: each.value for each in node.keywords})
    except TypeError as error:
        yield node, "slicer-util", f"slicer.util.{name}(): {error}"
    except ValueError:
        return  # a class without a signature


def _in_a_thread(node: ast.Call) -> Iterator[tuple[ast.AST, str, str]]:
    """``aside(slicer.…)``: a scene and pip belong to the main thread."""
    for argument in node.args[:1]:
        named = dotted(argument) or ""
        if _last_name(node.func) == "aside" and (named.startswith("slicer.") or named.split(".")[-1] in _MAIN_THREAD):
            yield node, "main-thread", f"{named} belongs to the main thread"


def _flattened(node: ast.Attribute) -> Iterator[tuple[ast.AST, str, str]]:
    """``slicer.loadVolume``: in the wheel only, Slicer has it in ``slicer.util``."""
    if dotted(node.value) != "slicer":
        return
    import slicer.util

    found = getattr(slicer.util, node.attr, None)
    if inspect.isfunction(found) and found.__module__ == "slicer.util":
        yield node, "slicer-util", f"write slicer.util.{node.attr}"


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.AST) -> str | None:
    """``a.b.c`` of the nested attributes of a name, None of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None
