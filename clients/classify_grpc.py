#!/usr/bin/env python3
"""Classify image files with a Slipway classifier, over gRPC."""

import queue
import re
import sys
from typing import Any

try:
    import tritonclient.grpc as triton
    from classify_common import ServerError, main
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    sys.exit(
        f"classify_grpc.py: {error.name} is missing: pip install 'tritonclient[grpc]' numpy, and copy "
        "classify_common.py too"
    )

CONTROL_TIMEOUT_S = 5.0
HERE = re.compile(r"(localhost|127\.[\d.]+|\[::1\]):\d+")


class GrpcClient:
    def __init__(self, url: str, timeout_s: float) -> None:
        proxies = 0 if HERE.fullmatch(url) else 1  # http_proxy must not come between this machine and itself
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_http_proxy", proxies),
        ]
        self._client = triton.InferenceServerClient(url, channel_args=options)
        self._timeout_s = timeout_s

    def _call(self, method: str, *args: Any, timeout_s: float = CONTROL_TIMEOUT_S, **kwargs: Any) -> Any:
        try:
            return getattr(self._client, method)(*args, client_timeout=timeout_s, **kwargs)
        except triton.InferenceServerException as error:
            raise ServerError(error.message()) from None

    def check_live(self) -> None:
        if not self._call("is_server_live"):
            raise ServerError("the server says that it is not live")

    def models(self) -> list[str]:
        # Not the repository index: a hardened server restricts it.
        return [model.name for model in self._call("get_inference_statistics").model_stats]

    def config(self, model: str) -> dict[str, Any]:
        config: dict[str, Any] = self._call("get_model_config", model, as_json=True)["config"]
        return config

    def infer(self, model: str, images_n1: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        image = triton.InferInput("IMAGE", list(images_n1.shape), "BYTES")
        image.set_data_from_numpy(images_n1)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        answered = lambda result, error: answers.put((result, error))  # noqa: E731
        self._call("async_infer", model, [image], answered, outputs=wanted, timeout_s=self._timeout_s)
        try:
            # gRPC's own deadline waits for a body that it has begun to send, and a stopped server reads none.
            result, error = answers.get(timeout=self._timeout_s + 0.1)
        except queue.Empty:
            raise ServerError("Deadline Exceeded") from None
        if error:
            raise ServerError(error.message())
        return {name: result.as_numpy(name) for name in outputs}


if __name__ == "__main__":
    sys.exit(main(__doc__, port=8001, connect=GrpcClient))
