"""Is an ensemble ready? Only an answered image says so: `/v2/health/ready` is 200 with a dead stub behind it."""

import numpy as np

from slipway.contract import MissingDependencyError
from slipway.steps.guard import PLACEHOLDER

try:
    from tritonclient import grpc
except ImportError:
    raise MissingDependencyError("tritonclient", extra="serve") from None

TIMEOUT_S = 10.0


def probe(grpc_url: str, model: str) -> str | None:
    """Send one image; None when it was answered with STATUS 0, else the reason."""
    image = grpc.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[PLACEHOLDER]], np.object_))
    client = grpc.InferenceServerClient(grpc_url)
    try:
        status = int(client.infer(model, [image], client_timeout=TIMEOUT_S).as_numpy("STATUS")[0, 0])
    except grpc.InferenceServerException as error:
        return str(error.message()).partition("\n")[0]
    finally:
        client.close()
    return None if status == 0 else f"STATUS {status} for a good image"
