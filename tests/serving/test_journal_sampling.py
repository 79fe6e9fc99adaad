"""The choice of the journal, by the guard's own text in a real Envoy: its share, its rate, and what it weighs back to.

Arrivals are given as times, so that minutes of requests take a moment.
"""

import http.client
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from slipway.operations.gateway.binary import start_envoy
from slipway.operations.gateway.configuration import BOOTSTRAP
from slipway.operations.gateway.listener import HTTP_FILTERS, guard
from slipway.operations.gateway.settings import read_settings
from slipway.serving import Ports
from slipway.system.yaml_json import dump_yaml
from tests.support.gateways import needs_envoy, write_gateway
from tests.support.journals import until

pytestmark = needs_envoy
DRIVER = """
function envoy_on_request(handle)
  local body, found, headers, added, now = handle:body(), {}, {}, nil, nil
  function headers:add(_, value) added = value end
  function headers:remove() end
  local request = {}
  function request:headers() return headers end
  function request:timestamp() return now end
  second = {start = 0, count = 0, rate = 0}
  local asked = handle:headers()
  LIMITS.share, LIMITS.per_second = tonumber(asked:get("share")), tonumber(asked:get("per-second"))
  math.randomseed(tonumber(asked:get("seed")))
  for time_ms in body:getBytes(0, body:length()):gmatch("%d+") do
    added, now = nil, time_ms
    sample(request)
    if added then found[#found + 1] = time_ms .. " " .. added end
  end
  handle:respond({[":status"] = "200"}, table.concat(found, "\\n") .. "\\n")
end
"""
"""Put below the guard's text: calls its `sample` for each time of a body, and answers with those that are chosen."""


class Chosen(NamedTuple):
    time_ms: int
    probability: float


Sample = Callable[..., list[Chosen]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    folder, port = tmp_path_factory.mktemp("envoy"), Ports.free().http
    settings = read_settings(write_gateway(folder, tls=False, observe={}))
    (folder / BOOTSTRAP).write_text(dump_yaml(bootstrap(guard(settings, ["digits"]) + DRIVER, port)))
    process = start_envoy(folder, workers=1)

    def sample(arrivals_s: np.ndarray, *, share: float, per_second: float, seed: int) -> list[Chosen]:
        body = "\n".join(str(time_ms) for time_ms in np.round(1000 * arrivals_s).astype(int))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {"share": str(share), "per-second": str(per_second), "seed": str(seed)}
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, (folder / "envoy.log").read_text()
        return [Chosen(int(line.split()[0]), float(line.split()[1])) for line in text.splitlines()]

    try:
        until(lambda: _answers(sample))
        yield sample
    finally:
        process.terminate()
        process.wait(10)


def _answers(sample: Sample) -> bool:
    try:
        return sample(np.array([1.0]), share=1, per_second=5, seed=1) == [Chosen(1000, 1.0)]
    except OSError:
        return False


def bootstrap(text: str, port: int) -> Any:
    """An Envoy that runs this text for each request."""
    types = "type.googleapis.com/envoy.extensions.filters"
    lua = {"@type": f"{HTTP_FILTERS}.lua.v3.Lua", "default_source_code": {"inline_string": text}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "sample",
        "http_filters": [
            {"name": "lua", "typed_config": lua},
            {"name": "router", "typed_config": {"@type": f"{HTTP_FILTERS}.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "none", "domains": ["*"]}]},
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "per_connection_buffer_limit_bytes": 1 << 24,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener]}}


@pytest.mark.parametrize("rate", [0.2, 5.0, 40.0, 400.0])
def test_the_sample_holds_its_share_and_its_rate_and_weighs_back_to_all_requests(sample: Sample, rate: float) -> None:
    draw = np.random.default_rng(22)
    seconds, runs, weighed, counts = 60.0, 20 if rate > 100 else 100, [], []
    for run in range(runs):
        arrivals = np.sort(draw.uniform(0, seconds, draw.poisson(rate * seconds))) + 1e9
        found = sample(arrivals, share=0.5, per_second=5, seed=run)
        counts.append(len(found))
        weighed.append(sum(1 / one.probability for one in found) - len(arrivals))
    error = float(np.mean(weighed)) / (float(np.std(weighed)) / runs**0.5)
    assert abs(error) < 3.5
    assert np.mean(counts) / seconds <= 5 * 1.1
    if rate <= 5:
        assert np.mean(counts) == pytest.approx(0.5 * rate * seconds, rel=0.1)


def test_a_burst_and_a_clock_that_goes_back_are_bounded(sample: Sample) -> None:
    burst = 1e9 + np.arange(5000) / 5000  # a second of 5,000 after silence
    assert len(sample(burst, share=1, per_second=5, seed=1)) < 5 * (1 + np.log(5000)) + 30
    back = np.concatenate([burst, burst - 3600])
    assert len(sample(back, share=1, per_second=5, seed=1)) < 2 * (5 * (1 + np.log(5000)) + 30)
