"""`labels:` of gateway.yaml: how many labels a day, how they are shared out, and the Label Studio that shows images."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from slipway.contract.typed_file import Contract
from slipway.operations.labels.select import SelectSettings

PLACE = "{classifier}"
HERE = ("127.0.0.1", "localhost", "::1")


class LabelStudio(Contract):
    """A running Label Studio, and the access token of one of its users."""

    url: str = "http://127.0.0.1:8080"
    """Address without a path at its end. Other machines than this one need https."""
    token_file: str
    """File with the access token in one line, relative to the file of settings. Only its owner may read it."""
    project: str = Field(default=f"slipway-{PLACE}", min_length=3, max_length=50)
    """Title of each classifier's project; it must contain `{classifier}`."""
    annotators: int = Field(default=1, ge=1, le=20)
    """People who label each image, for a project that push makes."""
    timeout_s: float = Field(default=30, gt=0, le=600)
    """Longest time to wait for one answer."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("write an address such as http://127.0.0.1:8080") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or port == 0:
            raise ValueError("write an address such as http://127.0.0.1:8080")
        if parts.username is not None:
            raise ValueError("write no name or password into it; the token in token_file is what Label Studio asks for")
        if parts.scheme == "http" and parts.hostname not in HERE:
            raise ValueError("the token and the images would travel in plain text; use https, or 127.0.0.1")
        return url.rstrip("/")

    @field_validator("project")
    @classmethod
    def _one_project_for_each_classifier(cls, project: str) -> str:
        if PLACE not in project:
            raise ValueError(f"it must contain {PLACE}, since each classifier has a project of its own")
        return project


class Labels(SelectSettings):
    """The budget of labels, and who is asked for them."""

    label_studio: LabelStudio | None = None
    """The Label Studio server of `slipway labels push` and `pull`."""

    def below(self, base: Path) -> Self:
        """Return these settings with absolute paths of the files that they name."""
        studio = self.label_studio
        if studio is None:
            return self
        token = {"token_file": str(base / studio.token_file)}
        return self.model_copy(update={"label_studio": studio.model_copy(update=token)})
