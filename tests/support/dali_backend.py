"""What NVIDIA's DALI backend does with the folder of a decode step, by the same calls: serialise, create, feed, run.

Run as a script, since DALI's C interface throws C++ exceptions, which would end the tests:
`dali_backend.py SERIALISED LARGEST_BATCH BATCHES.npz RESULTS.npz`.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

# The program that the backend gives to the `python3` on the server's PATH.
SERIALISE = """
import importlib.util, sys
from nvidia.dali._utils.autoserialize import invoke_autoserialize
spec = importlib.util.spec_from_file_location("autoserialize_mod", sys.argv[1])
head_module = importlib.util.module_from_spec(spec)
sys.modules["autoserialize_mod"] = head_module
spec.loader.exec_module(head_module)
invoke_autoserialize(head_module, sys.argv[2])
"""
INPUT, CPU, UINT8, CPU_ONLY_DEVICE_ID, AS_SERIALISED = b"encoded", 0, 0, -99999, -1


class Backend:
    """One pipeline, created as the backend creates it: in the older executor, whatever was serialised."""

    def __init__(self, serialised: bytes, largest_batch: int) -> None:
        import nvidia.dali

        self._dali = ctypes.CDLL(str(Path(nvidia.dali.__file__).parent / "libdali.so"))
        self._dali.daliShapeAtSample.restype = ctypes.POINTER(ctypes.c_int64)
        self._dali.daliInitialize()
        self._handle = ctypes.c_void_p()
        parameters = (serialised, len(serialised), largest_batch, AS_SERIALISED, CPU_ONLY_DEVICE_ID)
        self._call("daliCreatePipeline", *parameters, 0, 1, 0, 0, 0)  # one queue for both stages, of one batch

    def run(self, rows: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """Encoded images of any lengths, side by side in one buffer, to `UINT8 [n, H, W, 3]`."""
        data = np.concatenate(rows)
        shapes = (ctypes.c_int64 * len(rows))(*map(len, rows))
        self._call("daliSetExternalInputBatchSize", INPUT, len(rows))
        self._call("daliSetExternalInput", INPUT, CPU, _pointer(data), UINT8, shapes, 1, None, 0)
        self._call("daliRun")
        self._call("daliOutput")
        shape = self._dali.daliShapeAtSample(ctypes.byref(self._handle), 0, 0)[:3]
        pixels_nhwc_u8 = np.empty((len(rows), *shape), np.uint8)
        self._call("daliOutputCopy", _pointer(pixels_nhwc_u8), 0, CPU, None, 0)
        self._call("daliOutputRelease")
        return pixels_nhwc_u8

    def _call(self, function: str, *arguments: object) -> None:
        getattr(self._dali, function)(ctypes.byref(self._handle), *arguments)


def _pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def main(serialised: str, largest_batch: str, batches: str, results: str) -> None:
    """Run every batch of `batches`: its arrays `<batch>/<request>` are `UINT8 [n, L]`, each with an L of its own."""
    backend = Backend(Path(serialised).read_bytes(), int(largest_batch))
    rows: dict[str, list[npt.NDArray[np.uint8]]] = {}
    with np.load(batches) as loaded:
        for name in sorted(loaded):
            rows.setdefault(name.split("/")[0], []).extend(loaded[name])
    np.savez(results, **{batch: backend.run(encoded) for batch, encoded in rows.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
