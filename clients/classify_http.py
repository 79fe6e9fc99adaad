#!/usr/bin/env python3
"""Classify image files with a Slipway classifier, over HTTP."""

import sys
from collections.abc import Callable
from typing import Any

try:
    import gevent  # tritonclient[http] brings it
    import tritonclient.http as triton
    from classify_common import ServerError, main
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    sys.exit(
        f"classify_http.py: {error.name} is missing: pip install 'tritonclient[http]' numpy, and copy "
        "classify_common.py too"
    )

CONTROL_TIMEOUT_S = 5.0


class HttpClient:
    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = triton.InferenceServerClient(url, connection_timeout=None, network_timeout=None)
        self._timeout_s = timeout_s

    @staticmethod
    def _call(method: Callable[..., Any], *args: Any, timeout_s: float = CONTROL_TIMEOUT_S, **kwargs: Any) -> Any:
        try:
            # The client's own time-outs are for each read: a server that sends a byte a second meets them for ever.
            # A TimeoutError, which is a socket's: the connection is given up, not waited for by the next call.
            with gevent.Timeout(timeout_s, TimeoutError("Deadline Exceeded")):
                return method(*args, **kwargs)
        except triton.InferenceServerException as error:
            raise ServerError(error.message()) from None
        except Exception as error:
            # Below tritonclient lie sockets, gevent and an HTTP parser, each with exceptions of its own.
            raise ServerError(f"{type(error).__name__}: {error}") from None

    def check_live(self) -> None:
        if not self._call(self._client.is_server_live):
            raise ServerError("what answers there is not a live tritonserver")

    def models(self) -> list[str]:
        # Not the repository index: a hardened server restricts it.
        return [model["name"] for model in self._call(self._client.get_inference_statistics)["model_stats"]]

    def config(self, model: str) -> dict[str, Any]:
        config: dict[str, Any] = self._call(self._client.get_model_config, model)
        return config

    def infer(self, model: str, images_n1: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        image = triton.InferInput("IMAGE", list(images_n1.shape), "BYTES")
        image.set_data_from_numpy(images_n1)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        result = self._call(self._client.infer, model, [image], outputs=wanted, timeout_s=self._timeout_s)
        return {name: result.as_numpy(name) for name in outputs}


if __name__ == "__main__":
    sys.exit(main(__doc__, port=8000, connect=HttpClient))
