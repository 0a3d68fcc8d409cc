from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from builder.errors import InvalidInput
from tests.unit.validate_support import good_facts
from validate.facts import document_of
from validate.reference import plan_of


def described(**changes: Any) -> bytes:
    (info,) = (run for run in good_facts().commands if run.argv[:1] == ("info",))
    return json.dumps(document_of(info)["image"] | changes).encode()


def test_an_image_describes_itself() -> None:
    image = good_facts().image
    assert image is not None
    plan = plan_of(replace(image, reference="somewhere/else:tag"), described())
    assert (plan.id, plan.reference) == ("yolov8-cu128", "somewhere/else:tag")
    assert plan.packages == {}
    assert {item.part for item in plan.missing} == {"tensorrt", "weights"}


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", described(id="../../etc"), described(id=7), described(weights=[{}])],
)
def test_a_description_that_can_t_be_trusted_is_refused(text: bytes) -> None:
    image = good_facts().image
    assert image is not None
    with pytest.raises(InvalidInput, match="description can't be read"):
        plan_of(image, text)
