"""Controls a running tritonserver: loads and unloads models, and checks by an answer that a model is ready."""

from collections.abc import Mapping
from typing import Any

from slipway.contract import ServingError
from slipway.errors import requiring
from slipway.serving.probe import (
    CHANNEL,
    LeftOutError,
    ProbeAnswer,
    ProbeConnection,
    of_heads,
    over_grpc,
    over_http,
    said,
)

with requiring("tritonclient", extra="serve"):
    from tritonclient import grpc

PROBE_TIMEOUT_S = 5.0


class Control:
    """A gRPC connection to one server, with the key of its restricted APIs; `probe` makes connections of its own."""

    def __init__(self, grpc_url: str, http_url: str, key: str) -> None:
        self._grpc_url, self._http_url = grpc_url, http_url
        self._client = ProbeConnection(grpc_url, channel_args=CHANNEL)
        self._headers = {"triton-grpc-protocol-slipway-admin": key}

    def close(self) -> None:
        self._client.close()

    def is_live(self) -> bool:
        """Whether the server listens."""
        try:
            return bool(self._client.is_server_live(client_timeout=PROBE_TIMEOUT_S))
        except grpc.InferenceServerException:
            return False

    def load(self, model: str, *, timeout_s: float) -> None:
        """Load `model`, or load it again if its folder is newer.

        Raises:
            ServingError: the model does not load; the message has the server's reason.
        """
        self._call(f"{model} did not load", self._client.load_model, model, timeout_s)

    def unload(self, model: str, *, timeout_s: float) -> None:
        """Unload `model`. On return it accepts no more requests; those under way may still be answered."""
        self._call(f"{model} did not unload", self._client.unload_model, model, timeout_s)

    def answered(self, model: str) -> int:
        """Number of requests that `model` has answered or failed since it was loaded."""
        try:
            statistics = self._client.get_inference_statistics(model, client_timeout=PROBE_TIMEOUT_S)
        except grpc.InferenceServerException as error:
            raise ServingError(said(error)) from None
        return sum(one.inference_stats.success.count + one.inference_stats.fail.count for one in statistics.model_stats)

    def probe(self, ensemble: str, bundles: Mapping[str, str]) -> None:
        """Send one good image over each protocol, on new connections, as a new user would.

        `/v2/health/ready` is true even if a stub is dead, and an old connection does not show whether new ones work.

        Args:
            bundles: prefix of the output names to the bundle id that has to answer.

        Raises:
            LeftOutError: the ensemble is that of a head which its group could not load.
            BusyError: the request was rejected because the queue is full.
            ServingError: there is no answer, or a wrong one.
        """
        for answer in (
            over_grpc(self._grpc_url, ensemble, timeout_s=PROBE_TIMEOUT_S),
            over_http(self._http_url, ensemble, timeout_s=PROBE_TIMEOUT_S),
        ):
            for prefix, expected in bundles.items():
                _check(answer, prefix, expected)

    def probe_heads(self, step: str, bundles: Mapping[str, str], *, embedding_size: int) -> dict[str, str]:
        """Ask a group's step for all of its heads, without an image; returns each head that does not answer as it
        should, with the reason. `bundles` are those that have to answer, by head."""
        try:
            answer = of_heads(self._client, step, bundles, embedding_size=embedding_size, timeout_s=PROBE_TIMEOUT_S)
        except LeftOutError as error:
            if len(bundles) == 1:
                return dict.fromkeys(bundles, str(error))
            each = [{head: bundle} for head, bundle in bundles.items()]
            found = [self.probe_heads(step, one, embedding_size=embedding_size) for one in each]
            return {head: problem for problems in found for head, problem in problems.items()}
        except ServingError as error:
            return dict.fromkeys(bundles, str(error))
        problems = {}
        for head, expected in bundles.items():
            try:
                _check(answer, f"{head}.", expected)
            except ServingError as error:
                problems[head] = str(error)
        return problems

    def _call(self, failure: str, call: Any, model: str, timeout_s: float) -> None:
        try:
            call(model, headers=self._headers, client_timeout=timeout_s)
        except grpc.InferenceServerException as error:
            raise ServingError(f"{failure}: {said(error)}") from None


def _check(answer: ProbeAnswer, prefix: str, bundle: str) -> None:
    """Raises ServingError: an answer to a good image has a status, or is not that of `bundle`."""
    status, found = answer[f"{prefix}STATUS"], answer[f"{prefix}BUNDLE"]
    if status != 0:
        raise ServingError(f"{prefix}STATUS {status} for a good image")
    if found != bundle:
        raise ServingError(f"{prefix}BUNDLE is {found:.12} where {bundle:.12} is active")
