"""Calls ModelOpt quietly on a temporary file, and turns its failures into ours."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from slipway.contract import MissingDependencyError, QuantizeError, SlipwayError


@contextlib.contextmanager
def modelopt_file(source: onnx.ModelProto) -> Iterator[Path]:
    """A copy of `source` that ModelOpt may change (it writes inferred shapes there, and other files beside it).

    Output printed inside the block, such as a progress bar for every tensor, is shown only if ModelOpt fails.

    Raises:
        QuantizeError: ModelOpt failed; includes its last output.
    """
    messages = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(source, path)
        try:
            with contextlib.redirect_stdout(messages), contextlib.redirect_stderr(messages):
                yield path
        except ImportError:
            raise MissingDependencyError("nvidia-modelopt", extra="build") from None
        except SlipwayError:
            raise
        except Exception as error:
            last_words = messages.getvalue()[-2000:]
            raise QuantizeError(f"ModelOpt could not convert this graph: {error}\n{last_words}") from error
