"""Users that ask through a gateway without a pause, and remember every answer."""

import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple

import grpc

from tests.support.gateways import Asked, grpc_key
from tests.support.v2_requests import IMAGE, message

ARMS = {"stable", "candidate"}


class Answer(NamedTuple):
    """An answer, or an error in place of the arm."""

    sent: float
    """`time.monotonic()`, as `at`."""
    at: float
    arm: str
    bundle: str


class Users:
    """Two threads that ask a classifier for its bundle."""

    def __init__(self, asked: Asked, *, model: str = "colours") -> None:
        self._model = model
        self.answers: list[Answer] = []
        self._stub, self._over = asked.stub(), Event()
        self._pool = ThreadPoolExecutor(2)
        self._futures = [self._pool.submit(self._ask) for _ in range(2)]

    def _ask(self) -> None:
        request = message(IMAGE, model=self._model, outputs=("BUNDLE",))
        while not self._over.is_set():
            sent = time.monotonic()
            try:
                answer, call = self._stub.ModelInfer.with_call(request, metadata=grpc_key(), timeout=10)
                arm, bundle = dict(call.initial_metadata())["slipway-arm"], answer.raw_output_contents[0][4:].decode()
            except grpc.RpcError as error:
                arm, bundle = f"{error.code()}: {error.details()}", ""
            self.answers.append(Answer(sent, time.monotonic(), arm, bundle))
            time.sleep(0.01)

    def since(self, start: float) -> set[tuple[str, str]]:
        """Arm and bundle of the answers after `start`."""
        return {(one.arm, one.bundle) for one in list(self.answers) if one.at > start}

    def failed(self, *, since: float = -math.inf, until: float = math.inf) -> list[str]:
        """The errors in this time (monotonic)."""
        return [one.arm for one in list(self.answers) if one.arm not in ARMS and since < one.at <= until]

    def stop(self) -> Counter[str]:
        """How many answers each arm gave, and how often each error came."""
        self._over.set()
        for future in self._futures:
            future.result()
        self._pool.shutdown()
        return Counter(one.arm for one in self.answers)
