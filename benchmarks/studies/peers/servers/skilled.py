"""Classifies as a skilled team would write it: OpenCV decodes and resizes, OpenVINO runs the INT8 graph.

It has no guard, a single status for broken images, no embedding and no unknown class: such a team need not pay for
parts that it leaves out.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openvino as ov
from classifier import Settings, keep_to_a_core, read_json, read_labels

Pixels = npt.NDArray[np.uint8]
BAD_IMAGE = 1


class SkilledClassifier:
    """Classifies encoded images in one thread. Takes the arguments of `Classifier`."""

    def __init__(self, settings: Settings) -> None:
        self._core_held = keep_to_a_core(settings) if settings.pinned else None
        cv2.setNumThreads(1)
        preprocess = read_json(settings.folder / "preprocess.json")
        self._height, self._width = preprocess["input_height"], preprocess["input_width"]
        self._crop_fraction = preprocess["crop_fraction"]
        self._labels = read_labels(settings.folder)
        arithmetic = (settings.folder / "arithmetic.txt").read_text()
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": arithmetic,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = ov.Core().compile_model(settings.folder / "model.onnx", "CPU", hints)
        self._request = compiled.create_infer_request()
        for size in (1, settings.max_batch) * 2:
            self._request.infer([np.zeros((size, self._height, self._width, 3), np.uint8)])

    def classify(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answer each image: the best label, its softmax, and the status, 0 if OpenCV could decode it."""
        pixels_nhwc_u8 = np.zeros((len(images), self._height, self._width, 3), np.uint8)
        decoded = [self._decode_into(pixels_nhwc_u8[i], image) for i, image in enumerate(images)]
        logits_nc = self._request.infer([pixels_nhwc_u8], share_inputs=True)["logits_nc"]
        exponent_nc = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
        best_n = logits_nc.argmax(axis=1)
        score_n = exponent_nc.max(axis=1) / exponent_nc.sum(axis=1)
        return [
            {"label": self._labels[best], "score": float(score), "status": 0 if good else BAD_IMAGE}
            for best, score, good in zip(best_n.tolist(), score_n, decoded, strict=True)
        ]

    def _decode_into(self, pixels_hwc_u8: Pixels, encoded: bytes) -> bool:
        """Resize the shorter side and cut out the centre. Returns False if OpenCV cannot decode the image."""
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return False
        scale = max(self._height / image.shape[0], self._width / image.shape[1]) / self._crop_fraction
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        top, left = (size[1] - self._height) // 2, (size[0] - self._width) // 2
        cut_out = resized[top : top + self._height, left : left + self._width]
        cv2.cvtColor(cut_out, cv2.COLOR_BGR2RGB, dst=pixels_hwc_u8)
        return True
