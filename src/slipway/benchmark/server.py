"""Talks to the server under test over gRPC: requests, and the server's own counters of its time."""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from slipway.benchmark.http_client import HttpClient, message
from slipway.contract.shared_rules import is_busy
from slipway.errors import ServingError, requiring
from slipway.system.channel import channel_options, not_triton, proxy_hint

with requiring("tritonclient", extra="bench"):
    from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException

SETUP_DEADLINE_S = 10.0
FIRST_ANSWER_DEADLINE_S = 60.0
"""Seconds for a first request, which may load libraries and compile."""
_OUTPUTS = ("LABEL", "SCORE", "STATUS", "BUNDLE")
_OTHER_TENSORS = "other tensors"
_OURS = "give an ensemble that Slipway assembled: IMAGE in; LABEL, SCORE, STATUS and BUNDLE out"
_TRITON = "the gate needs Triton's model configuration and statistics: give a tritonserver that offers both"
_HEADER_LENGTH = "Inference-Header-Content-Length"
_DURATIONS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class ServedAnswer:
    """The best class of one image, and the bundle that answered."""

    label: bytes
    score: float
    bundle: bytes


@dataclass(frozen=True)
class StepCounters:
    """Triton's counters for one model since the server started."""

    requests: int
    images: int
    executions: int
    total_ns: int
    duration_ns: dict[str, int]


class TritonConnection:
    """A connection to one ensemble of a tritonserver. Use as an async context manager.

    Args:
        url: `host:port` for gRPC.
        model: an ensemble with Slipway's served interface: IMAGE in; LABEL, SCORE and STATUS out.
        images: encoded images; request `i` sends one of them.
        certificate: PEM file to trust; the connection is encrypted if it is given.
        headers: metadata of every request for an image, such as a gateway's key.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        images: Sequence[bytes],
        certificate: Path | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self.model = model
        self._headers = dict(headers)
        self._client = InferenceServerClient(
            url,
            ssl=certificate is not None,
            root_certificates=None if certificate is None else str(certificate),
            channel_args=channel_options(url),
        )
        self._inputs = [_image_input(image) for image in images]
        self._outputs = [InferRequestedOutput(name) for name in _OUTPUTS]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def check_ready(self) -> None:
        """Raises ServingError where no server answers at the URL or it does not serve the model."""
        try:
            await self._client.is_server_live(client_timeout=SETUP_DEADLINE_S)
        except InferenceServerException as error:
            remedy = not_triton(str(error.message())) or "start one with: slipway serve REPOSITORY"
            raise ServingError(
                f"no tritonserver answers gRPC at {self.url} ({error.message()}); {remedy}{proxy_hint(self.url)}"
            ) from None
        if not await self._is_model_ready():
            served = sorted(await self.counters())
            raise ServingError(f"{self.url} does not serve {self.model!r}; it serves {', '.join(served) or 'nothing'}")

    async def _is_model_ready(self) -> bool:
        try:
            return bool(await self._client.is_model_ready(self.model, client_timeout=SETUP_DEADLINE_S))
        except InferenceServerException as error:
            if _code(error) == "NOT_FOUND":  # for an unknown model Triton answers "not ready", other servers this
                return False
            raise self._error(error) from None

    async def first_answer(self) -> str:
        """Send one request with a long deadline. Returns the id of the bundle that answered.

        Raises:
            ServingError: there was no answer, or not from one of our ensembles; the message gives the server's reason.
        """
        answer = await self._reply(
            self._client.infer(
                self.model, [self._inputs[0]], outputs=self._outputs, client_timeout=FIRST_ANSWER_DEADLINE_S
            )
        )
        values = _values(answer)
        if values is None:
            raise ServingError(f"{self.url}, model {self.model!r}: it answers with {_OTHER_TENSORS}; {_OURS}")
        return values[0].bundle.decode(errors="replace")

    async def settle(self) -> None:
        """Wait until a single request is answered: everything queued before it is then done.

        Raises:
            ServingError: no answer came within a minute; the message gives the server's reason.
        """
        over_s = time.monotonic() + FIRST_ANSWER_DEADLINE_S
        while True:
            try:
                await self.first_answer()
                return
            except ServingError:
                if time.monotonic() > over_s:
                    raise
                await asyncio.sleep(1)

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        """Send one image. Returns None for a right answer, otherwise the reason."""
        answer = await self.answer(image, deadline_s=deadline_s)
        return answer if isinstance(answer, str) else None

    async def answer(self, image: int, *, deadline_s: float) -> ServedAnswer | str:
        """Send one image. Returns its answer where STATUS is 0, otherwise the reason."""
        try:
            # gRPC's own deadline waits for a body that is being sent, and a stopped server never reads it.
            async with asyncio.timeout(deadline_s):
                answer = await self._client.infer(
                    self.model,
                    [self._inputs[image]],
                    outputs=self._outputs,
                    headers=self._headers,
                    client_timeout=deadline_s,
                )
        except TimeoutError:
            return "timed out"
        except InferenceServerException as error:
            code = _code(error)
            if code == "DEADLINE_EXCEEDED":
                return "timed out"
            return "rejected" if is_busy(str(error.message())) else f"error {code}"
        values = _values(answer)
        if values is None:
            return _OTHER_TENSORS
        right, status = values
        return f"STATUS {status}" if status else right

    async def version(self) -> str:
        metadata = await self._reply(self._client.get_server_metadata(client_timeout=SETUP_DEADLINE_S))
        return f"{metadata.name} {metadata.version}"

    async def steps(self) -> list[str]:
        """Return the models that the ensemble runs, in its order."""
        reply = await self._reply(self._client.get_model_config(self.model, client_timeout=SETUP_DEADLINE_S))
        return [step.model_name for step in reply.config.ensemble_scheduling.step]

    async def check_statistics(self, models: Sequence[str]) -> None:
        """Raises ServingError where the server has no statistics for one of the models."""
        counters = await self.counters()
        if missing := [model for model in models if model not in counters]:
            raise ServingError(f"{self.url}: no statistics for {', '.join(missing)}; {_TRITON}")

    async def counters(self) -> dict[str, StepCounters]:
        """Return the counters of every model, summed over its versions."""
        reply = await self._reply(self._client.get_inference_statistics(client_timeout=SETUP_DEADLINE_S))
        by_name: dict[str, list[Any]] = {}
        for model in reply.model_stats:
            by_name.setdefault(model.name, []).append(model)
        return {name: _counters(versions) for name, versions in by_name.items()}

    async def _reply(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except InferenceServerException as error:
            raise self._error(error) from None

    def _error(self, error: InferenceServerException) -> ServingError:
        remedy = {"INVALID_ARGUMENT": f"; {_OURS}", "UNIMPLEMENTED": f"; {_TRITON}"}.get(_code(error), "")
        return ServingError(f"{self.url}, model {self.model!r}: {error.message()}{remedy}")


class HttpConnection(TritonConnection):
    """A server that gets images over HTTP, with the binary extension of the V2 protocol; counters still use gRPC.

    Args:
        http_url: `host:port` for HTTP.
        certificate: PEM file to trust; HTTP is encrypted if it is given.
        headers: of every request for an image, such as a gateway's key.
    """

    def __init__(
        self,
        url: str,
        *,
        http_url: str,
        model: str,
        images: Sequence[bytes],
        certificate: Path | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(url, model=model, images=images[:1])
        address = f"http://{http_url}/v2/models/{model}/infer"
        self._messages = [_http_message(address, image, headers) for image in images]
        tls = None if certificate is None else ssl.create_default_context(cafile=str(certificate))
        self._http = HttpClient(http_url, tls=tls)

    async def __aexit__(self, *given: object) -> None:
        await self._http.__aexit__(*given)
        await super().__aexit__(*given)

    async def answer(self, image: int, *, deadline_s: float) -> ServedAnswer | str:
        try:
            status, headers, body = await self._http.post(self._messages[image], deadline_s=deadline_s)
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return f"error {type(error).__name__}"
        if status != 200:
            return "rejected" if is_busy(body.decode(errors="replace")) else f"error {status}"
        try:
            tensors = _http_tensors(headers, body)
            (refused,) = struct.unpack("<i", tensors["STATUS"])
            (score,) = struct.unpack_from("<f", tensors["SCORE"])
            right = ServedAnswer(_first_text(tensors["LABEL"]), score, _first_text(tensors["BUNDLE"]))
        except (KeyError, TypeError, ValueError, struct.error):
            return _OTHER_TENSORS
        return f"STATUS {refused}" if refused else right


def _code(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _values(answer: InferResult) -> tuple[ServedAnswer, int] | None:
    """Return the best answer and STATUS; None where the tensors are not those of the served interface."""
    try:
        label, score, status, bundle = (answer.as_numpy(name).flat[0] for name in _OUTPUTS)
        values = ServedAnswer(label, float(score), bundle), int(status)
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):  # a tensor is missing, empty or odd
        return None
    return values if isinstance(label, bytes) and isinstance(bundle, bytes) else None


def _http_message(address: str, image: bytes, headers: Mapping[str, str]) -> bytes:
    tensor = struct.pack("<I", len(image)) + image
    size = {"binary_data_size": len(tensor)}
    asked = {
        "inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": size}],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in _OUTPUTS],
    }
    head = json.dumps(asked).encode()
    return message(address, head + tensor, {_HEADER_LENGTH: str(len(head)), **headers})


def _http_tensors(headers: Mapping[str, str], body: bytes) -> dict[str, bytes]:
    begin = int(headers[_HEADER_LENGTH.lower()])
    tensors = {}
    for output in json.loads(body[:begin])["outputs"]:
        end = begin + int(output["parameters"]["binary_data_size"])
        tensors[output["name"]] = body[begin:end]
        begin = end
    return tensors


def _first_text(tensor: bytes) -> bytes:
    (length,) = struct.unpack_from("<I", tensor)
    return tensor[4 : 4 + length]


def _counters(versions: Sequence[Any]) -> StepCounters:
    return StepCounters(
        requests=sum(v.inference_stats.success.count for v in versions),
        images=sum(v.inference_count for v in versions),
        executions=sum(v.execution_count for v in versions),
        total_ns=sum(v.inference_stats.success.ns for v in versions),
        duration_ns={name: sum(getattr(v.inference_stats, name).ns for v in versions) for name in _DURATIONS},
    )


def _image_input(image: bytes) -> InferInput:
    tensor = InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image]], dtype=np.object_))
    return tensor


def on_this_host(url: str) -> bool:
    """Return whether `url` is an address of this machine, so that the client shares the server's cores."""
    host = url.rsplit(":", 1)[0].strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)  # only an address of this machine can be bound
    except OSError:
        return False
    return True
