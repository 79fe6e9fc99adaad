"""`import tensorrt` where only TensorRT-RTX is installed: it compiles, and the timing cache is played.

TensorRT-RTX has the cache's functions, and they do nothing. Here every build adds a line to the cache that it was
given; content that does not begin with `HEADER` is refused, as TensorRT refuses that of another version or GPU.
"""

from typing import Any

import tensorrt_rtx_bindings as rtx  # type: ignore[import-untyped, unused-ignore]
from tensorrt_rtx_bindings import *  # noqa: F403

__version__ = "11.2.1.2"
HEADER = b"timings of TensorRT 11.2.1\n"
ONE_BUILD = b"what one build has timed\n"


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class BuilderConfig:
    """That of TensorRT-RTX, but for the cache."""

    def __init__(self, config: Any) -> None:
        self.__dict__.update(config=config, cache=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.config, name, value)

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content or HEADER)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and not cache.content.startswith(HEADER):
            return False
        self.__dict__["cache"] = cache
        return True


class Builder(rtx.Builder):  # type: ignore[misc]
    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(super().create_builder_config())

    def build_serialized_network(self, network: Any, config: BuilderConfig) -> Any:
        config.cache.content += ONE_BUILD
        return super().build_serialized_network(network, config.config)
