"""What stands in for modules that older packages import and newer ones no longer have. Each is set once, before the package is imported.

Nothing here replaces a module that is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from svad_ray.errors import BackendUnavailable

_TENSOR_FUNCTIONS = "torchvision.transforms.functional_tensor"
_COMPILED = "mmcv._ext"


def torchvision_functional_tensor() -> None:
    """For basicsr 1.4.2, and with it realesrgan: torchvision moved ``rgb_to_grayscale`` to another module."""
    if _there(_TENSOR_FUNCTIONS):
        return
    module = _registered(ModuleType(_TENSOR_FUNCTIONS))
    module.rgb_to_grayscale = importlib.import_module("torchvision.transforms.functional").rgb_to_grayscale  # type: ignore[attr-defined]


def mmcv_compiled() -> None:
    """For mmpose and mmdet on mmcv-lite: ``mmcv.ops`` looks up its compiled operations when it is imported, and mmcv-lite has none.

    Suppression of boxes is torchvision's; every other operation raises when it is called.
    """
    if not _there(_COMPILED):
        _registered(_Operations(_COMPILED))


class _Operations(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _suppressed if name == "nms" else _absent(name)


def _suppressed(boxes: Any, scores: Any, *, iou_threshold: float, offset: int) -> Any:
    """Numbers of the boxes that stay, best first.

    Args:
        boxes: (N, 4) x1, y1, x2, y2. scores: (N,). offset: 1 counts the last pixel too.
    """
    from torch import tensor
    from torchvision.ops import nms

    if offset:  # a box one wider and higher has the area and the overlaps that count the last pixel
        boxes = boxes + tensor([0, 0, offset, offset], dtype=boxes.dtype, device=boxes.device)
    return nms(boxes, scores, iou_threshold)


def _absent(name: str) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise BackendUnavailable(
            f"mmcv's compiled operation '{name}' is not there: mmcv-lite is installed",
            remedy="use a model that needs none, as RTMPose and RTMDet, or build mmcv with its operations",
        )

    return call


def _registered(module: ModuleType) -> ModuleType:
    """Found by name from now on. No loader: mmengine takes that, rightly, for mmcv without its operations."""
    module.__spec__ = ModuleSpec(module.__name__, None)
    sys.modules[module.__name__] = module
    return module


def _there(name: str) -> bool:
    if name in sys.modules:
        return True
    return importlib.util.find_spec(name) is not None
