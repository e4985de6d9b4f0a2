# ruff: noqa: N801, N802, N815 - the names are those of Slicer and Qt
"""ctk widgets for numbers and ranges."""

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from slicerhost.qtpatch import HostClass

__all__ = ["ctkDoubleSpinBox", "ctkRangeWidget", "ctkSliderWidget"]


class ctkSliderWidget(HostClass, QtWidgets.QWidget):
    """A slider with a spin box."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._tracking = True
        self._page_step = 10.0
        self._slider = QtWidgets.QSlider(Qt.Orientation.Horizontal, self)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        self._spin.setRange(0.0, 99.0)
        self._spin.setDecimals(2)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._scale_slider()
        self._slider.valueChanged.connect(self._from_slider)
        self._slider.sliderReleased.connect(self._released)
        self._spin.valueChanged.connect(self._from_spin)

    def _step(self) -> float:
        return 10.0**-self._spin.decimals

    def _scale_slider(self) -> None:
        self._slider.blockSignals(True)
        self._slider.setRange(round(self._spin.minimum / self._step()), round(self._spin.maximum / self._step()))
        self._slider.setValue(round(self._spin.value / self._step()))
        self._slider.blockSignals(False)

    def _from_slider(self, position: int) -> None:
        value = position * self._step()
        if self._slider.isSliderDown():
            self.valueIsChanging.emit(value)
            if not self._tracking:
                return
        self._spin.setValue(value)

    def _released(self) -> None:
        self._spin.setValue(self._slider.value * self._step())

    def _from_spin(self, value: float) -> None:
        self._scale_slider()
        self.valueChanged.emit(value)

    def _set_minimum(self, minimum: float) -> None:
        self._spin.setMinimum(minimum)
        self._scale_slider()

    def _set_maximum(self, maximum: float) -> None:
        self._spin.setMaximum(maximum)
        self._scale_slider()

    def _set_single_step(self, step: float) -> None:
        self._spin.setSingleStep(step)

    def _set_page_step(self, step: float) -> None:
        self._page_step = step

    def _set_tracking(self, tracking: bool) -> None:
        self._tracking = tracking

    def _set_prefix(self, text: str) -> None:
        self._spin.setPrefix(text)

    def _set_suffix(self, text: str) -> None:
        self._spin.setSuffix(text)

    def _set_spin_box_visible(self, visible: bool) -> None:
        self._spin.setVisible(visible)

    @Slot(float)
    def setValue(self, value: float) -> None:
        self._spin.setValue(value)

    @Slot(int)
    def setDecimals(self, decimals: int) -> None:
        self._spin.setDecimals(decimals)
        self._scale_slider()

    @Slot()
    def reset(self) -> None:
        self._spin.setValue(0.0)

    value = Property(float, lambda self: self._spin.value, setValue)
    minimum = Property(float, lambda self: self._spin.minimum, _set_minimum)
    maximum = Property(float, lambda self: self._spin.maximum, _set_maximum)
    singleStep = Property(float, lambda self: self._spin.singleStep, _set_single_step)
    pageStep = Property(float, lambda self: self._page_step, _set_page_step)
    decimals = Property(int, lambda self: self._spin.decimals, setDecimals)
    prefix = Property(str, lambda self: self._spin.prefix, _set_prefix)
    suffix = Property(str, lambda self: self._spin.suffix, _set_suffix)
    tracking = Property(bool, lambda self: self._tracking, _set_tracking)
    spinBoxVisible = Property(bool, lambda self: not self._spin.isHidden(), _set_spin_box_visible)


class ctkRangeWidget(HostClass, QtWidgets.QWidget):
    """Two numbers of a range."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._low, self._high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for spin in (self._low, self._high):
            spin.setRange(0.0, 99.0)
            layout.addWidget(spin)
        self._high.setValue(99.0)
        self._low.valueChanged.connect(self._low_changed)
        self._high.valueChanged.connect(self._high_changed)

    def _low_changed(self, value: float) -> None:
        if value > self._high.value:
            self._high.setValue(value)
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(self._low.value, self._high.value)

    def _high_changed(self, value: float) -> None:
        if value < self._low.value:
            self._low.setValue(value)
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self._low.value, self._high.value)

    @Slot(float, float)
    def setValues(self, low: float, high: float) -> None:
        self._low.setValue(low)
        self._high.setValue(high)

    @Slot(float, float)
    def setRange(self, minimum: float, maximum: float) -> None:
        self._low.setRange(minimum, maximum)
        self._high.setRange(minimum, maximum)

    @Slot(float)
    def setMinimumValue(self, value: float) -> None:
        self._low.setValue(value)

    @Slot(float)
    def setMaximumValue(self, value: float) -> None:
        self._high.setValue(value)

    def _set_minimum(self, value: float) -> None:
        self.setRange(value, self._low.maximum)

    def _set_maximum(self, value: float) -> None:
        self.setRange(self._low.minimum, value)

    def _set_decimals(self, value: int) -> None:
        self._low.setDecimals(value)
        self._high.setDecimals(value)

    def _set_single_step(self, value: float) -> None:
        self._low.setSingleStep(value)
        self._high.setSingleStep(value)

    minimum = Property(float, lambda self: self._low.minimum, _set_minimum)
    maximum = Property(float, lambda self: self._low.maximum, _set_maximum)
    minimumValue = Property(float, lambda self: self._low.value, setMinimumValue)
    maximumValue = Property(float, lambda self: self._high.value, setMaximumValue)
    decimals = Property(int, lambda self: self._low.decimals, _set_decimals)
    singleStep = Property(float, lambda self: self._low.singleStep, _set_single_step)


class ctkDoubleSpinBox(HostClass, QtWidgets.QWidget):
    """A spin box for numbers; a QWidget around one, as in CTK."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._spin)
        self._spin.valueChanged.connect(self.valueChanged)

    @Slot(float)
    def setValue(self, value: float) -> None:
        self._spin.setValue(value)

    def _set_minimum(self, value: float) -> None:
        self._spin.setMinimum(value)

    def _set_maximum(self, value: float) -> None:
        self._spin.setMaximum(value)

    def _set_decimals(self, value: int) -> None:
        self._spin.setDecimals(value)

    def _set_single_step(self, value: float) -> None:
        self._spin.setSingleStep(value)

    def _set_suffix(self, value: str) -> None:
        self._spin.setSuffix(value)

    value = Property(float, lambda self: self._spin.value, setValue)
    minimum = Property(float, lambda self: self._spin.minimum, _set_minimum)
    maximum = Property(float, lambda self: self._spin.maximum, _set_maximum)
    decimals = Property(int, lambda self: self._spin.decimals, _set_decimals)
    singleStep = Property(float, lambda self: self._spin.singleStep, _set_single_step)
    suffix = Property(str, lambda self: self._spin.suffix, _set_suffix)
