"""Serves as tutorials do: FastAPI with uvicorn workers, PIL, ONNX Runtime on the FP32 network, one image at a time."""

import io
from functools import cache
from typing import Annotated, Any

import numpy as np
import onnxruntime
import uvicorn
from classifier import read_json, read_labels, settings_given, settings_left
from fastapi import FastAPI, UploadFile
from fastapi_server import UVICORN
from numpy.typing import NDArray
from PIL import Image

app = FastAPI()


@cache
def model() -> tuple[onnxruntime.InferenceSession, list[str], dict[str, Any]]:
    folder = settings_left().folder
    session = onnxruntime.InferenceSession(folder / "fp32.onnx", providers=["CPUExecutionProvider"])
    return session, read_labels(folder), read_json(folder / "preprocess.json")


def pixels(encoded: bytes, preprocess: dict[str, Any]) -> NDArray[np.float32]:
    """Resize the shorter side, cut out the centre, and normalise, as torchvision's transforms do."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    height, width = preprocess["input_height"], preprocess["input_width"]
    scale = max(height / image.height, width / image.width) / preprocess["crop_fraction"]
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    normalised = (np.asarray(image, np.float32) / 255 - preprocess["mean"]) / preprocess["std"]
    pixels_nchw: NDArray[np.float32] = normalised.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    return pixels_nchw


@app.post("/classify")
def classify(file: Annotated[UploadFile, "the image"]) -> dict[str, Any]:
    session, labels, preprocess = model()
    logits = session.run(None, {session.get_inputs()[0].name: pixels(file.file.read(), preprocess)})[0][0]
    exponent = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return {"label": labels[best], "score": float(exponent[best] / exponent.sum()), "status": 0}


if __name__ == "__main__":
    settings = settings_given()
    uvicorn.run("tutorial_server:app", workers=settings.workers, port=settings.port, **UVICORN)
