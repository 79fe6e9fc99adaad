"""NVIDIA's DALI backend: encoded images, padded with zeros, to pixels, decoded on the GPU.

When the server starts, the backend imports this file by its path and serialises the one pipeline that is marked; it
runs it with the largest batch and the threads of config.pbtxt, which are those of pipeline.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.triton import autoserialize

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # this file is imported alone, without a package around it
from dali_graph import preprocess  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

CONFIG = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
SIZES = json.loads((HERE / "pipeline.json").read_text(encoding="utf-8"))


@autoserialize  # type: ignore[untyped-decorator, unused-ignore]
@pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
    batch_size=SIZES["batch_size"],
    num_threads=SIZES["num_threads"],
    device_id=None if CONFIG["decoder"] == "cpu" else 0,
    exec_dynamic=False,  # as the backend runs it, so that what it could not run is an error here
    output_dtype=[types.UINT8],  # with these two, a config.pbtxt that says something else is refused
    output_ndim=[3],
)
def pipeline() -> Any:
    encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
    return preprocess(encoded, CONFIG, hardware_jpeg=SIZES["hardware_jpeg"])
