from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from validate.numbers import median, percentile, theil_sen
from validate.parity import FP32, Box, compare, overlap

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)
corner = st.floats(0, 1000)


def row(kind: int, score: float, x: float = 0.0, side: float = 100.0) -> list[float]:
    return [kind, score, x, 0.0, x + side, side]


def test_percentile_is_a_measured_value() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 90) == 90
    assert percentile([7.0], 90) == 7.0


@given(numbers, st.floats(0, 100))
def test_percentile_lies_among_the_values(values: list[float], share: float) -> None:
    assert percentile(values, share) in values


@pytest.mark.parametrize("function", [median, lambda values: percentile(values, 50)])
def test_nothing_measured_has_no_statistics(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="at least one value"):
        function([])


def test_median_of_an_even_number() -> None:
    assert median([1.0, 9.0, 3.0, 5.0]) == 4.0


def test_slope_ignores_an_outlier() -> None:
    values = [2.0 * step for step in range(20)]
    values[7] = 1e9
    assert theil_sen(values) == pytest.approx(2.0)
    assert theil_sen([5.0]) == 0.0


@given(corner, corner, st.floats(1, 500), st.floats(1, 500))
def test_overlap_with_itself_is_one(x: float, y: float, width: float, height: float) -> None:
    box = Box(kind=0, score=1.0, corners=(x, y, x + width, y + height))
    assert overlap(box, box) == pytest.approx(1.0)


def test_overlap_of_known_boxes() -> None:
    left = Box.from_row(row(0, 1.0, 0.0))
    right = Box.from_row(row(0, 1.0, 50.0))
    far = Box.from_row(row(0, 1.0, 500.0))
    empty = Box(kind=0, score=1.0, corners=(5, 5, 5, 5))
    assert overlap(left, right) == pytest.approx(1 / 3)
    assert overlap(left, far) == 0.0
    assert overlap(empty, empty) == 0.0


def test_equal_boxes_are_in_parity() -> None:
    boxes = [[row(0, 0.9), row(1, 0.8, 300.0)]]
    parity = compare(boxes, boxes, FP32)
    assert parity.compared == 2
    assert parity.within(FP32)


@pytest.mark.parametrize(
    "other",
    [
        [[row(0, 0.9, 10.0)]],  # moved
        [[row(0, 0.7)]],  # another score
        [[row(1, 0.9)]],  # another class
        [[]],  # lost
        [[row(0, 0.9), row(0, 0.9, 400.0)]],  # invented
    ],
)
def test_different_boxes_are_not(other: list[list[list[float]]]) -> None:
    assert not compare([[row(0, 0.9)]], other, FP32).within(FP32)


def test_a_weak_box_needs_no_partner() -> None:
    parity = compare([[row(0, 0.9), row(0, 0.2, 400.0)]], [[row(0, 0.9)]], FP32)
    assert parity.within(FP32)
    assert parity.compared == 1


def test_each_box_is_matched_once() -> None:
    parity = compare([[row(0, 0.9)]], [[row(0, 0.9), row(0, 0.88, 1.0)]], FP32)
    assert parity.compared == 1
    assert parity.lonely == ("picture 0, export: class 0 score 0.88",)


def test_pictures_must_pair_up() -> None:
    with pytest.raises(ValueError, match="2 pictures on one side, 1 on the other"):
        compare([[], []], [[]], FP32)
