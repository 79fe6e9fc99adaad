"""Soak or ramp a served classifier with locust: users of gRPC and of HTTP that send a mix of images.

Every user asks again as soon as it has its answer: a closed loop, for soak and saturation. The verdict on P99 is the
gate's (benchmarks/gate.py). An answer whose STATUS is not 0, a refusal, a time-out and an error are failures, each
under a name of its own; one of them makes locust end with 1.

    slipway serve model_repository/cpu                                  # in another terminal
    export SLIPWAY_MODEL=digits SLIPWAY_IMAGES=runs/digits/data
    locust -f benchmarks/locustfile.py --headless --clients 8 --duration-s 600           # soak, both protocols
    locust -f benchmarks/locustfile.py --headless --clients 32 --duration-s 240 --ramp-steps 8 Grpc  # 4, 8, ... 32
    locust -f benchmarks/locustfile.py --web-host 127.0.0.1             # the same from a page, on port 8089

The load is --clients, --duration-s and --ramp-steps, on the page as on the command line, and always ends; locust's own
--users, --spawn-rate and --run-time have no say. `--help` lists every option; --json prints the figures as JSON last.
"""

import itertools
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, events, task
from tritonclient.utils import InferenceServerException

from slipway.benchmark.gate import load_images
from slipway.contract import SlipwayError
from slipway.contract.shared_rules import is_busy
from slipway.steps.guard import STATUS_NAMES
from slipway.system.channel import channel_options

OUTPUTS = ("LABEL", "SCORE", "STATUS", "BUNDLE")
TIMED_OUT = ("DEADLINE_EXCEEDED", "499")
NUMBERS = itertools.count()

init_gevent()  # or the first gRPC call would stop every other user


class NoRightAnswerError(Exception):
    """An answer that is not right. Locust's table of failures shows it."""


def add_options(parser: Any) -> None:
    parser.epilog = __doc__
    add = parser.add_argument  # in no group, or the page would not show them
    add("--model", env_var="SLIPWAY_MODEL", required=True, help="The ensemble to ask: the classifier's name")
    images = {"env_var": "SLIPWAY_IMAGES", "include_in_web_ui": False}  # read once, before the page exists
    add("--images", required=True, metavar="FOLDER", help="Image files below it are sent", **images)
    add("--grpc-url", default="127.0.0.1:8001", help="host:port of Triton's gRPC; default: %(default)s")
    add("--http-url", default="127.0.0.1:8000", help="host:port of Triton's HTTP; default: %(default)s")
    add(
        "--clients",
        type=int,
        default=4,
        metavar="N",
        help="Users at the end, half Grpc, half Http; default: %(default)s",
    )
    add("--duration-s", type=float, default=60.0, metavar="S", help="Of the whole load; default: %(default)g")
    add("--ramp-steps", type=int, default=1, metavar="N", help="Reach --clients in N equal steps; 1 is a soak")
    add(
        "--deadline-s",
        type=float,
        default=5.0,
        metavar="S",
        help="Limit of a request; default: %(default)g",
    )
    add("--seed", type=int, default=0, help="Of the draw and the order of the images; default: %(default)s")


def read_images(environment: Any, **_: Any) -> None:
    options = environment.parsed_options
    environment.stop_timeout = options.stop_timeout or options.deadline_s  # wait for the last answers
    try:
        environment.images = load_images(Path(options.images), seed=options.seed)
    except SlipwayError as error:
        sys.exit(f"locustfile.py: {error}")


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(read_images)


class Ramp(LoadTestShape):
    """Adds `--clients` users in `--ramp-steps` equal steps over `--duration-s`, and then ends."""

    def tick(self) -> tuple[int, float] | None:
        assert self.runner
        options: Any = self.runner.environment.parsed_options
        step = math.floor((time.perf_counter() - self.start_time) / options.duration_s * options.ramp_steps) + 1
        if step > options.ramp_steps:
            return None
        return math.ceil(options.clients * step / options.ramp_steps), options.clients


class Classify(User):
    """Asks for one image after the other, and looks at every answer."""

    abstract = True
    protocol: str
    triton: Any
    """The protocol's module of tritonclient."""

    def on_start(self) -> None:
        self.options = self.environment.parsed_options
        self.rng = random.Random(f"{self.options.seed} {next(NUMBERS)}")
        self.outputs = [self.triton.InferRequestedOutput(name) for name in OUTPUTS]
        self.client = self.connect()

    def connect(self) -> Any:
        """Make a client of the protocol."""
        raise NotImplementedError

    def ask(self, inputs: Sequence[Any]) -> Any:
        """Send one request, and return tritonclient's answer."""
        raise NotImplementedError

    def on_stop(self) -> None:
        self.client.close()
        del self.client  # or tritonclient closes it once more at the end of the process, and hangs

    @task
    def classify(self) -> None:
        image = self.triton.InferInput("IMAGE", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[self.rng.choice(self.environment.images)]], np.object_))
        started_s = time.perf_counter()
        failure = self.failure([image])
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=self.options.model,
            response_time=(time.perf_counter() - started_s) * 1000,
            response_length=0,
            exception=NoRightAnswerError(failure) if failure else None,
            context={},
        )

    def failure(self, inputs: Sequence[Any]) -> str | None:
        """Return the reason why an answer is not right, or None."""
        try:
            status = int(self.ask(inputs).as_numpy("STATUS").flat[0])
        except InferenceServerException as error:
            code = str(error.status()).removeprefix("StatusCode.")
            return (
                "timed out"
                if code in TIMED_OUT
                else f"refused: {code}"
                if is_busy(str(error.message()))
                else f"error {code}"
            )
        except TimeoutError:
            return "timed out"
        except Exception as error:  # of the HTTP client: a connection that is refused or lost, in many classes
            return f"error {type(error).__name__}"
        return f"STATUS {status}, {STATUS_NAMES[status]}" if status else None


class Grpc(Classify):
    protocol, triton = "gRPC", triton_grpc

    def connect(self) -> Any:
        url = self.options.grpc_url
        return triton_grpc.InferenceServerClient(url, channel_args=channel_options(url))

    def ask(self, inputs: Sequence[Any]) -> Any:
        return self.client.infer(
            self.options.model, inputs, outputs=self.outputs, client_timeout=self.options.deadline_s
        )


class Http(Classify):
    protocol, triton = "HTTP", triton_http

    def connect(self) -> Any:
        return triton_http.InferenceServerClient(self.options.http_url, network_timeout=self.options.deadline_s)

    def ask(self, inputs: Sequence[Any]) -> Any:
        with gevent.Timeout(self.options.deadline_s, TimeoutError()):  # network_timeout is for each read alone
            return self.client.infer(self.options.model, inputs, outputs=self.outputs)
