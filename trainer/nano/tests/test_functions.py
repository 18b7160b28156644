from __future__ import annotations

import random

import pytest

from codealign.nano import blocks, functions
from codealign.nano.functions import Code, Composition, Names

DRAWS = 400
NAMES = Names("f", "p", "e", "out")


def compositions(seed: int, count: int = DRAWS) -> list[Composition]:
    dice = random.Random(seed)
    return [functions.draw(dice) for _ in range(count)]


def outcome(body: Code, argument: object) -> object:
    try:
        return functions.call(functions.define(NAMES, body), NAMES.function, argument)
    except functions.FAULTS as error:
        return type(error)


def test_there_are_thousands_of_ways_to_put_blocks_together() -> None:
    assert len(functions.shapes()) > 5000
    assert len({(s.name, f.name, m.name, r.name) for s, f, m, r in functions.shapes()}) == len(functions.shapes())


def test_every_right_way_gives_the_same_value() -> None:
    dice = random.Random(1)
    for composition in compositions(2):
        argument = functions.draw_argument(dice, composition)
        expected = functions.evaluate(composition, argument)
        for _ in range(4):
            body = functions.write_body(dice, composition, NAMES)
            assert body.is_right
            assert outcome(body, argument) == expected, (composition.key, body.body, argument)


def test_the_independent_phrasing_gives_the_same_value() -> None:
    dice = random.Random(3)
    said = 0
    for composition in compositions(4):
        argument = functions.draw_argument(dice, composition)
        other = functions.write_other(composition, argument)
        if other is not None:
            said += 1
            assert eval(other) == functions.evaluate(composition, argument), (composition.key, other, argument)
    assert said > DRAWS / 2


@pytest.mark.parametrize("kind", [blocks.FILTERS, blocks.MAPS, blocks.REDUCES])
def test_every_wrong_way_can_be_seen(kind: tuple[blocks.Block, ...]) -> None:
    dice = random.Random(5)
    for block in (each for each in kind if each.wrong):
        seen = 0
        shapes = [shape for shape in functions.shapes() if any(each is block for each in shape)]
        for shape in dice.sample(shapes, 60):
            composition = functions.with_constants(dice, shape)
            body = functions.write_body(dice, composition, NAMES, wrong_share=1.0)
            assert not body.is_right
            argument = functions.draw_argument(dice, composition)
            seen += outcome(body, argument) != functions.evaluate(composition, argument)
        assert seen > 5, (block.name, seen)


def test_held_out_compositions_are_a_share_and_never_drawn() -> None:
    dice = random.Random(6)
    keys = {Composition(*shape).key: Composition(*shape).is_held_out for shape in functions.shapes()}
    share = sum(keys.values()) / len(keys)
    assert functions.HELD_OUT_SHARE * 0.8 < share < functions.HELD_OUT_SHARE * 1.2
    assert not any(keys[functions.draw(dice).key] for _ in range(DRAWS))
    assert all(keys[functions.draw(dice, held_out=True).key] for _ in range(50))


def test_descriptions_tell_compositions_apart() -> None:
    described: dict[str, str] = {}
    for composition in compositions(7, 2000):
        text = functions.describe(composition, "p")
        constants = (composition.filter_constant, composition.map_constant, composition.reduce_constant)
        meaning = f"{composition.key} {constants}"
        assert described.setdefault(text, meaning) == meaning, text
        assert "{" not in text


def test_the_same_dice_write_the_same() -> None:
    first, second = ([(c, functions.draw_names(random.Random(9), c)) for c in compositions(8)] for _ in range(2))
    assert first == second
