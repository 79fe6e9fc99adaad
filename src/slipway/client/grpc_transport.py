"""Triton over gRPC."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from slipway.client.errors import ClientError
from slipway.client.options import KEY_HEADER, Address, Options
from slipway.client.replies import late, refusal
from slipway.client.transport import image_tensor
from slipway.errors import MissingDependencyError
from slipway.system.channel import channel_options

try:
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException
except (ImportError, RuntimeError):  # RuntimeError: tritonclient is there, and what it needs for gRPC is not
    raise MissingDependencyError("tritonclient[grpc]", extra="client") from None

_CHANNEL = [
    # gRPC's own pauses grow to two minutes: a server that is back would go unseen.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name, how long one attempt to connect may take: a server that is slow to accept is not gone.
    ("grpc.min_reconnect_backoff_ms", 5000),
]
_FORKED = (
    "this process was forked from one that had a gRPC client, and gRPC would end it or hang; use an http:// address, "
    "or start workers by spawn"
)
_users: set[int] = set()
"""The processes that had a transport: a forked child sees its parent. gRPC's threads outlive a closed one, and with
those 10 of 20 children died."""


class GrpcTransport:
    """See `Transport`."""

    def __init__(self, address: Address, settings: Options) -> None:
        if _users - {os.getpid()}:
            raise ClientError(_FORKED)
        _users.add(os.getpid())
        self._address = address
        options = [*channel_options(address.host_port), *_CHANNEL]
        self._headers = {KEY_HEADER: settings.key} if settings.key is not None else None
        certificate = str(settings.certificate) if settings.certificate is not None else None
        self._client = InferenceServerClient(
            address.host_port, ssl=address.tls, root_certificates=certificate, channel_args=options
        )

    async def config(self, model: str, *, deadline_s: float) -> Mapping[str, Any]:
        reply = await self._call(self._client.get_model_config, model, as_json=True, deadline_s=deadline_s)
        config: Mapping[str, Any] = reply["config"]
        return config

    async def models(self, *, deadline_s: float) -> list[str]:
        # Not the repository index: a hardened server restricts it.
        reply = await self._call(self._client.get_inference_statistics, deadline_s=deadline_s)
        return [model.name for model in reply.model_stats]

    async def infer(
        self, model: str, images: Sequence[bytes], *, outputs: Sequence[str], request_id: str, deadline_s: float
    ) -> dict[str, NDArray[Any]]:
        image = InferInput("IMAGE", [len(images), 1], "BYTES")
        image.set_data_from_numpy(image_tensor(images))
        wanted = [InferRequestedOutput(name) for name in outputs]
        reply = await self._call(
            self._client.infer, model, [image], outputs=wanted, request_id=request_id, deadline_s=deadline_s
        )
        return {name: reply.as_numpy(name) for name in outputs}

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, call: Callable[..., Awaitable[Any]], *arguments: Any, deadline_s: float, **named: Any) -> Any:
        try:
            # gRPC's own deadline waits for a body that it has begun to send, and a stopped server reads none.
            async with asyncio.timeout(deadline_s):
                return await call(*arguments, headers=self._headers, client_timeout=deadline_s, **named)
        except TimeoutError:
            raise late(address=self._address) from None
        except InferenceServerException as error:
            code = str(error.status()).removeprefix("StatusCode.")
            raise refusal(code, error.message() or code, address=self._address) from None
