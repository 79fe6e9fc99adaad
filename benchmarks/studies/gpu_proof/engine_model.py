"""Triton's Python backend turns pixels into logits by `torch_graph`, instead of TensorRT. It is copied as `model.py`.

Pixels come as DLPack from the decoder's GPU memory, and logits leave as DLPack too. It imports only numpy and torch.
"""

import json
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

from .torch_graph import Arithmetic, TorchGraph


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        here, model = Path(__file__).parent, json.loads(args["model_config"])
        gpu = args["model_instance_kind"] == "GPU"
        self.device = f"cuda:{args['model_instance_device_id']}" if gpu else "cpu"
        torch.set_num_threads(1)
        arithmetic: Arithmetic = "typed" if gpu else "f32"  # a CPU takes a hundred times as long in FP16
        paths = here / "graph.json", here / "weights.npz"
        self.network = TorchGraph(*paths, device=self.device, arithmetic=arithmetic)
        network = json.loads((here / "network.json").read_text(encoding="utf-8"))
        self.mean, self.std = (torch.tensor(network[key])[:, None, None].to(self.device) for key in ("mean", "std"))
        image_hwc = [int(side) for side in model["input"][0]["dims"]]
        for batch_size in (1, model["max_batch_size"] if gpu else 1):
            self._run(torch.zeros((batch_size, *image_hwc), dtype=torch.uint8))
        self.said = False

    def execute(self, requests: list[Any]) -> list[Any]:
        batches = [self._pixels(request) for request in requests]
        logits = self._run(torch.cat(batches))
        if self.device != "cpu":
            torch.cuda.synchronize()
        parts = {name: torch.split(tensor, [len(batch) for batch in batches]) for name, tensor in logits.items()}
        self.kept = logits  # kept until the next batch, since Triton copies them after this returns
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor.from_dlpack(name, parts[name][index].contiguous())
                    for name in parts
                    if name in request.requested_output_names()
                ]
            )
            for index, request in enumerate(requests)
        ]

    def _run(self, pixels_nhwc_u8: torch.Tensor) -> dict[str, torch.Tensor]:
        levels_nchw = pixels_nhwc_u8.to(self.device).permute(0, 3, 1, 2).float()
        return self.network.run((levels_nchw / 255 - self.mean) / self.std)

    def _pixels(self, request: Any) -> torch.Tensor:
        tensor = pb_utils.get_input_tensor_by_name(request, "pixels_nhwc_u8")
        if not self.said:
            pb_utils.Logger.log_info(f"gpu_proof: pixels arrive on the {'CPU' if tensor.is_cpu() else 'GPU'}")
            self.said = True
        return torch.from_numpy(tensor.as_numpy()) if tensor.is_cpu() else from_dlpack(tensor.to_dlpack())
