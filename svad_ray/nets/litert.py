"""Runner of one .tflite network on the CPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from svad_ray.errors import WeightsMissing


class LiteRTNet:
    """One loaded network; float32 image in, named arrays out. Not safe to call from two threads at once.

    Args:
        path: The .tflite file.
        threads: CPU threads of the kernels.

    Raises:
        WeightsMissing: The file is absent or is no .tflite network.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        try:
            with _without_info_lines():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            found = f"{path} cannot be loaded as a .tflite network ({str(error)[:200]})"
            raise WeightsMissing(found, expected="the file as pulled", remedy="`svad-ray models check`, then `svad-ray models pull`") from error
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()

    @property
    def size(self) -> int:
        """Height and width of the square input, pixels."""
        return int(self._input["shape"][1])

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the network on one image.

        Args:
            image: (size, size, 3) float32, in the range the network was trained with.

        Returns:
            Output name -> float32 array without its batch axis.
        """
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(image, np.float32)[None])
        self._interpreter.invoke()
        return {output["name"]: self._interpreter.get_tensor(output["index"])[0] for output in self._outputs}


@contextmanager
def _without_info_lines() -> Iterator[None]:
    """Hold back what native code writes to standard error, then pass on all of it but the lines that begin with "INFO:".

    The library announces its CPU kernels there for every network, in the midst of progress bars, and has no switch for it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
                held.seek(0)
                os.write(2, b"".join(line for line in held if not line.startswith(b"INFO:")))
    finally:
        os.close(kept)
