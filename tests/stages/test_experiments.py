"""The experiments of the repository, whose modules import what they measure."""

import json

from benchmarks.studies.training import __main__ as study


def test_the_page_in_the_docs_is_that_of_the_result_file() -> None:
    result = study.read(study.RESULT)
    assert {name: entry.plain() for name, entry in result.items()} == json.loads(study.RESULT.read_text())
    assert study.PAGE.read_text(encoding="utf-8") == study.render(result)
    for name in study.NAMES:
        found = study.load(name)
        assert study.purpose(found)
        assert callable(found.measure)
