"""Triton's definition of a configuration, without the rest of tritonclient: gRPC and numpy take 0.15 s to import."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from slipway.errors import MissingDependencyError

_MODULE = "tritonclient.grpc.model_config_pb2"


def model_config(*, extra: str) -> Any:
    """The module `tritonclient.grpc.model_config_pb2`, which imports only protobuf.

    Raises:
        MissingDependencyError: there is no tritonclient; names the extra of Slipway that has it.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    package = importlib.util.find_spec("tritonclient")
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    spec = importlib.util.spec_from_file_location(_MODULE, Path(folder or "", "grpc", "model_config_pb2.py"))
    if folder is None or spec is None or spec.loader is None:
        raise MissingDependencyError("tritonclient", extra=extra)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, FileNotFoundError):
        raise MissingDependencyError("tritonclient", extra=extra) from None
    sys.modules[_MODULE] = module  # the client, if it is imported too, takes this one
    return module
