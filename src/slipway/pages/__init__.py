"""What all of our HTML pages share: one file each, that loads nothing and escapes every word that is not ours."""

from slipway.errors import MissingDependencyError

try:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
except ImportError:
    raise MissingDependencyError("jinja2", extra="train") from None

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: styles and images that the page holds, and nothing else."""


def environment(*packages: str) -> Environment:
    """The templates of `packages`, the first one's before the others', and `page_head.html`, which wants a `title`.

    Labels, file names and the words of specs and tools are untrusted: every one of them is escaped.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "slipway.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["policy"] = POLICY
    return found
