"""Triton over HTTP."""

import asyncio
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from slipway.client.errors import ServerError
from slipway.client.options import KEY_HEADER, Address, Options
from slipway.client.replies import gone, late, refusal
from slipway.client.transport import image_tensor
from slipway.errors import MissingDependencyError

try:
    from aiohttp import ClientConnectionError, ClientError, ClientPayloadError
    from tritonclient.http import InferInput, InferRequestedOutput
    from tritonclient.http.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException
except (ImportError, RuntimeError):  # RuntimeError: tritonclient is there, and what it needs for HTTP is not
    raise MissingDependencyError("tritonclient[http]", extra="client") from None

_UNLIMITED = 0
_TLS_CLOSES_S = 0.1
"""aiohttp does not wait for the end of TLS, and a loop that ends before warns of open sockets (aiohttp, "Graceful
Shutdown")."""


class HttpTransport:
    """See `Transport`."""

    def __init__(self, address: Address, options: Options) -> None:
        self._address = address
        self._headers = {KEY_HEADER: options.key} if options.key is not None else None
        self._client = InferenceServerClient(
            address.host_port,
            conn_limit=_UNLIMITED,
            conn_timeout=None,
            ssl=address.tls,
            ssl_context=ssl.create_default_context(cafile=options.certificate) if address.tls else None,
        )

    async def config(self, model: str, *, deadline_s: float) -> Mapping[str, Any]:
        config: Mapping[str, Any] = await self._call(
            self._client.get_model_config(model, headers=self._headers), deadline_s=deadline_s
        )
        return config

    async def models(self, *, deadline_s: float) -> list[str]:
        # Not the repository index: a hardened server restricts it.
        reply = await self._call(self._client.get_inference_statistics(headers=self._headers), deadline_s=deadline_s)
        return [model["name"] for model in reply["model_stats"]]

    async def infer(
        self, model: str, images: Sequence[bytes], *, outputs: Sequence[str], request_id: str, deadline_s: float
    ) -> dict[str, NDArray[Any]]:
        image = InferInput("IMAGE", [len(images), 1], "BYTES")
        image.set_data_from_numpy(image_tensor(images))
        wanted = [InferRequestedOutput(name) for name in outputs]
        call = self._client.infer(model, [image], outputs=wanted, request_id=request_id, headers=self._headers)
        reply = await self._call(call, deadline_s=deadline_s)
        return {name: reply.as_numpy(name) for name in outputs}

    async def close(self) -> None:
        await self._client.close()
        if self._address.tls:
            await asyncio.sleep(_TLS_CLOSES_S)

    async def _call(self, call: Awaitable[Any], *, deadline_s: float) -> Any:
        try:
            async with asyncio.timeout(deadline_s):
                return await call
        except TimeoutError:
            raise late(address=self._address) from None
        except InferenceServerException as error:
            raise refusal(str(error.status()), error.message(), address=self._address) from None
        except (ClientConnectionError, ClientPayloadError, OSError) as error:
            raise gone(f"{type(error).__name__}: {error}", address=self._address) from None
        except (ClientError, ValueError) as error:  # the answer is not HTTP, or not JSON
            raise ServerError(f"no tritonserver answers over HTTP at {self._address} ({error})") from None
