"""PySide6 that speaks like PythonQt: properties are values, signals connect by text, objects take no new attributes.

PythonQt's rule, as far as a module can tell: the name of a Qt property is a value (``label.text = "x"``), every other
method stays a method (``label.setText("x")``, ``widget.layout()``), ``name`` is ``objectName``. Classes are patched for
the whole process, before the first QApplication; libraries that call ``widget.width()`` themselves break in it.
"""

import os

os.environ["PYSIDE6_OPTION_PYTHON_ENUM"] = "2"  # enums that are also ints, as PythonQt's; read at the first import

import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

__all__ = ["HostClass", "make_qt_module", "patch"]

# Values in PythonQt, but virtual methods that Qt itself calls here: left as methods, and the lint forbids them.
_LEFT_METHODS = {"sizeHint", "minimumSizeHint"}
# Not in PythonQt's qt module, or only in recent versions: a module must do without.
_NOT_IN_QT = {"Signal", "SignalInstance", "Slot", "Property", "ClassInfo"}

_patched: set[type] = set()
_connections: dict[tuple[int, str], list[tuple[Callable, Any, Callable]]] = {}


class HostClass:
    """Marks the host's stand-ins for C++ classes: from outside they take no new attributes either.

    A class lists the signals that Qt's own meta-object cannot spell in ``_signatures``, text to signal name.
    """

    _signatures: ClassVar[dict[str, str]] = {}


class _PropertyAsValue:
    """A Qt property: a value on instances, the original function (maybe a static one) on the class."""

    def __init__(self, original: Any, read: Callable, write: Callable | None, name: str) -> None:
        self.original, self.read, self.write, self.name = original, read, write, name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return (self.original or self) if instance is None else self.read(instance)

    def __set__(self, instance: Any, value: Any) -> None:
        if self.write is None:
            raise AttributeError(f"Property '{self.name}' of {type(instance).__name__} is not writable")
        self.write(instance, value)


def patch() -> None:
    """Patch every QObject class of QtCore, QtGui and QtWidgets; once per process."""
    if _patched:
        return
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            each = getattr(module, name)  # classes are made when asked for: vars() would miss them
            if isinstance(each, type) and issubclass(each, QtCore.QObject) and each not in _patched:
                _patched.add(each)
                _patch_properties(each)
    object_class = QtCore.QObject
    object_class.name = property(lambda self: self.objectName, lambda self, value: self.setObjectName(value))
    object_class.className = lambda self: self.metaObject().className()
    object_class.delete = lambda self: self.deleteLater()
    for each in ("QDialog", "QMenu", "QApplication", "QEventLoop", "QCoreApplication"):
        cls = getattr(QtWidgets, each, None) or getattr(QtCore, each)
        if not hasattr(cls, "exec_"):
            cls.exec_ = cls.exec
    getters = {each: each.__getattribute__ for each in _patched}  # all before the first is replaced
    for each in _patched:
        each.__getattribute__ = _attribute_reader(getters[each])
        each.__setattr__ = _set_attribute


def make_qt_module() -> types.ModuleType:
    """The flat ``qt`` module, also put into ``sys.modules``."""
    qt = sys.modules["qt"] = types.ModuleType("qt", "Qt as modules of Slicer see it")
    for module in (QtUiTools, QtCore, QtGui, QtWidgets):
        for name in dir(module):
            if not name.startswith("_") and name not in _NOT_IN_QT:
                setattr(qt, name, getattr(module, name))
    return qt


def _patch_properties(cls: type) -> None:
    meta = cls.staticMetaObject
    if meta.className() != cls.__name__:
        return
    for index in range(meta.propertyCount()):
        name, writable = meta.property(index).name(), meta.property(index).isWritable()
        own = name in cls.__dict__ or index >= meta.propertyOffset()  # redefined ones too, such as QBoxLayout.spacing
        if own and name not in _LEFT_METHODS:
            original = cls.__dict__.get(name) or getattr(cls, name, None)
            setattr(cls, name, _as_value(cls, name, original, writable))


def _as_value(cls: type, name: str, original: Any, writable: bool) -> _PropertyAsValue:
    capital = name[0].upper() + name[1:]
    setter = getattr(cls, f"set{capital}", None)
    getter = original if callable(original) and name != "singleShot" else None  # QTimer.singleShot is static, too
    if getter is None:
        getter = next((f for prefix in ("is", "has") if callable(f := getattr(cls, prefix + capital, None))), None)
    if getter is None:
        getter = lambda self: QtCore.QObject.property(self, name)  # noqa: E731
    write = None
    if isinstance(setter, types.BuiltinMethodType):  # static, such as QApplication.applicationName
        return _PropertyAsValue(original, lambda self: original(), lambda self, value: setter(value), name)
    if setter is not None:
        write = lambda self, value: setter(self, value)  # noqa: E731
    elif writable:
        write = lambda self, value: self.setProperty(name, value)  # noqa: E731
    return _PropertyAsValue(original, lambda self: getter(self), write, name)


def _attribute_reader(read: Callable) -> Callable:
    """Each class keeps its own C reader (QFile.exists is static and a member); only connecting is new."""

    def attribute(self: Any, name: str) -> Any:
        if name not in ("connect", "disconnect"):
            return read(self, name)
        original, by_text = read(self, name), _connect if name == "connect" else _disconnect

        def connect(*arguments: Any) -> Any:
            named = arguments and isinstance(arguments[0], str) and arguments[0][:1].isalpha() and len(arguments) < 4
            return by_text(self, *arguments) if named else original(*arguments)

        return connect

    return attribute


def _set_attribute(self: Any, name: str, value: Any) -> None:
    cls = type(self)
    known = next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)
    if isinstance(known, QtCore.Property):
        # PythonQt takes tuples and lists alike, also for the int, float and str of numpy and pathlib it takes neither.
        self.setProperty(name, list(value) if isinstance(value, tuple) else value)
    elif hasattr(type(known), "__set__"):
        known.__set__(self, value)
    elif cls in _patched and not isinstance(value, QtCore.SignalInstance):
        raise AttributeError(f"'{name}' does not exist on {cls.__name__} and creating new attributes is not allowed")
    elif issubclass(cls, HostClass) and cls.__module__.startswith("slicerhost") and not name.startswith("_"):
        if not isinstance(value, QtCore.SignalInstance):
            raise AttributeError(
                f"'{name}' does not exist on {cls.__name__} and creating new attributes is not allowed"
            )
        self.__dict__[name] = value
    else:
        self.__dict__[name] = value  # Python subclasses of the module


def _signal(sender: Any, text: str) -> tuple[str, Any, bool]:
    """The signal of ``clicked(bool)``: its name, itself, and whether arguments are wished.

    Raises:
        AttributeError: Where the class has no such signal; a misspelt one fails in Slicer too.
    """
    name, _, arguments = text.partition("(")
    wished = arguments.rstrip(") ").strip()
    spelt = getattr(type(sender), "_signatures", {})
    if text in spelt:
        return text, getattr(sender, spelt[text]), bool(wished)
    normal = bytes(QtCore.QMetaObject.normalizedSignature(text)).decode()
    if sender.metaObject().indexOfSignal(normal) < 0:
        raise AttributeError(f"{type(sender).__name__} has no signal {text}")
    signal = getattr(sender, name)
    if wished:
        with suppress(KeyError, IndexError, TypeError):  # a signal of the host's own classes has one spelling only
            signal = signal[wished]
    return text, signal, bool(wished)


def _connect(sender: Any, text: str, slot: Any, slot_name: str | None = None) -> bool:
    if slot_name is not None:  # connect("signal()", receiver, "slot()")
        slot = getattr(slot, slot_name.partition("(")[0])
    key, signal, with_arguments = _signal(sender, text)
    if with_arguments:
        called = slot
    else:
        called = lambda *_: slot()  # noqa: E731 - a signal without arguments calls without any
    signal.connect(called)
    _connections.setdefault((id(sender), key), []).append((slot, signal, called))
    return True


def _disconnect(sender: Any, text: str, slot: Any = None, slot_name: str | None = None) -> bool:
    key, _, _ = _signal(sender, text)
    if slot_name is not None:
        slot = getattr(slot, slot_name.partition("(")[0])
    known = _connections.get((id(sender), key), [])
    matching = [each for each in known if slot is None or each[0] == slot]
    for each in matching:
        with suppress(RuntimeError):  # of an object that has lived at this address before
            each[1].disconnect(each[2])
        known.remove(each)
    return bool(matching)
