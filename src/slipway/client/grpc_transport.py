"""Triton over gRPC."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from slipway.client.options import Address
from slipway.client.replies import refusal
from slipway.client.transport import image_tensor
from slipway.contract.errors import MissingDependencyError

try:
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException
except (ImportError, RuntimeError):  # RuntimeError: tritonclient is there, and what it needs for gRPC is not
    raise MissingDependencyError("tritonclient[grpc]", extra="client") from None

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own pauses grow to two minutes: a server that is back would go unseen.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """See `Transport`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = InferenceServerClient(address.host_port, channel_args=_CHANNEL)

    async def config(self, model: str, *, deadline_s: float) -> Mapping[str, Any]:
        reply = await self._call(self._client.get_model_config(model, as_json=True, client_timeout=deadline_s))
        config: Mapping[str, Any] = reply["config"]
        return config

    async def models(self, *, deadline_s: float) -> list[str]:
        # Not the repository index: a hardened server restricts it.
        reply = await self._call(self._client.get_inference_statistics(client_timeout=deadline_s))
        return [model.name for model in reply.model_stats]

    async def infer(
        self, model: str, images: Sequence[bytes], *, outputs: Sequence[str], request_id: str, deadline_s: float
    ) -> dict[str, NDArray[Any]]:
        image = InferInput("IMAGE", [len(images), 1], "BYTES")
        image.set_data_from_numpy(image_tensor(images))
        wanted = [InferRequestedOutput(name) for name in outputs]
        reply = await self._call(
            self._client.infer(model, [image], outputs=wanted, request_id=request_id, client_timeout=deadline_s)
        )
        return {name: reply.as_numpy(name) for name in outputs}

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except InferenceServerException as error:
            code = str(error.status()).removeprefix("StatusCode.")
            raise refusal(code, error.message() or code, address=self._address) from None
