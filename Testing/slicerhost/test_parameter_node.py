"""Typed parameters live in the scene, refuse wrong values, and follow widgets both ways."""

import enum
import pathlib
from typing import Annotated

import pytest


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@pytest.fixture
def kinds(host):
    import slicer
    from slicer.parameterNodeWrapper import Choice, Default, Minimum, WithinRange, parameterNodeWrapper, parameterPack

    @parameterPack
    class Inner:
        runs: Annotated[int, WithinRange(1, 50)] = 5
        size: Size = Size.LARGE

    class Kinds:
        whole: int
        real: Annotated[float, Minimum(0)] = 0.5
        text: Annotated[str, Default("hello")]
        choice: Annotated[str, Choice(["cpu", "cuda"])] = "cuda"
        flag: bool
        size: Size
        path: pathlib.Path
        volume: slicer.vtkMRMLScalarVolumeNode
        volumes: list[slicer.vtkMRMLScalarVolumeNode]
        names: list[str]
        pair: tuple[int, str]
        roles: dict[str, Size]
        maybe: int | None
        inner: Inner
        packs: list[Inner]

    Kinds.__annotations__ = {**Kinds.__annotations__}
    return parameterNodeWrapper(Kinds), Inner


def new(wrapper):
    import slicer

    return wrapper(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def test_every_kind_has_its_default(kinds) -> None:
    wrapper, inner = kinds
    made = new(wrapper)
    assert (made.whole, made.real, made.text, made.choice, made.flag) == (0, 0.5, "hello", "cuda", False)
    assert (made.size, made.path, made.volume, made.maybe, made.pair) == (
        Size.SMALL,
        pathlib.Path(),
        None,
        None,
        (0, ""),
    )
    assert made.volumes == [] and made.names == [] and dict(made.roles) == {}  # noqa: PT018
    assert made.inner == inner(5, Size.LARGE)


def test_every_kind_comes_back_from_a_saved_scene(kinds, tmp_path) -> None:
    import slicer

    wrapper, inner = kinds
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    made = new(wrapper)
    made.parameterNode.SetName("mine")
    made.whole, made.real, made.text, made.flag, made.size = -3, 0.125, 'a, b; c\n"d" <e> ä', True, Size.LARGE
    made.path, made.volume, made.volumes, made.names = pathlib.Path("/x y"), volume, [volume], ["p", ""]
    made.pair, made.roles, made.maybe, made.packs = (4, "z"), {"k": Size.LARGE}, 7, [inner(2), inner(3, Size.SMALL)]
    made.inner.runs = 9
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back = wrapper(slicer.mrmlScene.GetFirstNodeByName("mine"))
    assert (back.whole, back.real, back.flag, back.size) == (-3, 0.125, True, Size.LARGE)
    assert back.text == 'a, b; c\n"d" <e> ä'
    assert (back.path, back.pair, back.maybe) == (pathlib.Path("/x y"), (4, "z"), 7)
    assert back.volume.GetName() == "a"
    assert [node.GetName() for node in back.volumes] == ["a"]
    assert back.names == ["p", ""]
    assert dict(back.roles) == {"k": Size.LARGE}
    assert [(pack.runs, pack.size) for pack in back.packs] == [(2, Size.LARGE), (3, Size.SMALL)]
    assert back.inner.runs == 9


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("whole", 1.5, TypeError),
        ("whole", None, ValueError),
        ("real", -1, ValueError),
        ("text", 3, TypeError),
        ("choice", "tpu", ValueError),
        ("size", "SMALL", TypeError),
        ("path", "/x", TypeError),
        ("volume", "vtkMRMLScalarVolumeNode1", TypeError),
        ("names", [1], TypeError),
        ("maybe", "x", TypeError),
        ("whale", 1, AttributeError),
    ],
)
def test_wrong_values_are_refused_and_the_old_one_stays(kinds, name: str, value, error) -> None:
    made = new(kinds[0])
    before = getattr(made, name, None)
    with pytest.raises(error):
        setattr(made, name, value)
    assert getattr(made, name, None) == before
    assert made.inner.runs == 5
    with pytest.raises(ValueError, match="within"):
        made.inner.runs = 99


def test_containers_write_themselves_back(kinds) -> None:
    made = new(kinds[0])
    made.names.append("a")
    made.names += ["b", "c"]
    del made.names[0]
    made.roles["x"] = Size.LARGE
    again = type(made)(made.parameterNode)
    assert again.names == ["b", "c"]
    assert again.roles["x"] is Size.LARGE


def test_a_node_that_is_removed_leaves_none(kinds) -> None:
    import slicer

    made = new(kinds[0])
    made.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    slicer.mrmlScene.RemoveNode(made.volume)
    assert made.volume is None


def test_names_and_types_that_slicer_refuses_are_refused(host) -> None:
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    class Reserved:
        default: int

    class Odd:
        thing: complex

    with pytest.raises(ValueError, match="reserved"):
        parameterNodeWrapper(Reserved)
    with pytest.raises(TypeError, match="cannot keep"):
        parameterNodeWrapper(Odd)


def test_widgets_and_parameters_follow_each_other(kinds) -> None:
    import ctk
    import qt
    import slicer

    made = new(kinds[0])
    widgets = {
        "whole": qt.QSpinBox(),
        "real": qt.QDoubleSpinBox(),
        "text": qt.QLineEdit(),
        "choice": qt.QComboBox(),
        "flag": qt.QCheckBox(),
        "size": qt.QComboBox(),
        "path": ctk.ctkPathLineEdit(),
        "volume": slicer.qMRMLNodeComboBox(),
        "inner.runs": qt.QSlider(),
    }
    widgets["volume"].noneEnabled = True
    widgets["volume"].setMRMLScene(slicer.mrmlScene)
    tag = made.connectParametersToGui(widgets)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    widgets["whole"].value = 3
    widgets["real"].value = 0.75
    widgets["text"].text = "typed"
    widgets["choice"].currentIndex = 0
    widgets["flag"].click()
    widgets["size"].currentIndex = 1
    widgets["path"].currentPath = "/there"
    widgets["volume"].setCurrentNode(volume)
    widgets["inner.runs"].value = 8
    assert (made.whole, made.real, made.text, made.choice, made.flag) == (3, 0.75, "typed", "cpu", True)
    assert (made.size, made.path, made.inner.runs) == (Size.LARGE, pathlib.Path("/there"), 8)
    assert made.volume is volume
    made.whole, made.text, made.flag, made.size, made.volume = 9, "set", False, Size.SMALL, None
    made.inner.runs = 50
    assert (widgets["whole"].value, widgets["text"].text, widgets["flag"].checked) == (9, "set", False)
    assert (widgets["size"].currentIndex, widgets["volume"].currentNode(), widgets["inner.runs"].value) == (0, None, 50)
    made.disconnectGui(tag)
    widgets["whole"].value = 1
    made.text = "alone"
    assert (made.whole, widgets["text"].text) == (9, "set")


def test_widgets_that_slicer_cannot_tie_are_refused(kinds) -> None:
    import ctk
    import qt

    made = new(kinds[0])
    for name, widget in (
        ("text", qt.QComboBox()),
        ("real", ctk.ctkSliderWidget()),
        ("whole", qt.QLineEdit()),
        ("flag", ctk.ctkCollapsibleButton()),
    ):
        with pytest.raises(RuntimeError):
            made.connectParametersToGui({name: widget})


def test_a_dictionary_takes_no_default_as_slicers_own_takes_none(kinds) -> None:
    wrapper, _inner = kinds
    made = new(wrapper)
    made.roles["k"] = Size.LARGE
    assert made.roles.get("k") is Size.LARGE
    assert made.roles.get("other") is None
    with pytest.raises(TypeError):
        made.roles.get("other", Size.SMALL)
    with pytest.raises(TypeError):
        made.roles.pop("other", None)
    assert made.roles.pop("k") is Size.LARGE
    assert dict(made.roles) == {}
