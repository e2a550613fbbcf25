"""Places told by frames alone: how soon a change is noticed, how often one is made up."""

from __future__ import annotations

import numpy as np

from endedge.edge.places import Places, recognise

# Mean log losses of four models in three places: the second differs little from the first.
MEANS = np.array([[1.0, 0.6, 0.8, 0.7], [1.1, 1.2, 0.6, 1.1], [2.0, 1.7, 1.8, 1.2]])


def batch(rng: np.random.Generator, place: int, n: int = 16) -> dict[str, list[float]]:
    hard = rng.normal(0, 0.4, n)
    return {
        f"m{i}": np.exp(mean + hard + rng.normal(0, 0.2, n)).tolist()
        for i, mean in enumerate(MEANS[place])
    }


def test_the_first_batch_is_place_zero_and_nothing_heard_changes_nothing() -> None:
    places = Places()
    rng = np.random.default_rng(0)
    assert places.heard(batch(rng, 0)) == 0
    assert places.heard({}) == 0
    assert places.heard({"m0": []}) == 0
    assert places.heard({"m0": [float("nan")] * 5}) == 0
    assert len(places) == 1


def test_days_of_three_places_that_return() -> None:
    """60 days of five visits: hardly ever a change that is none; noticed at once."""
    false, late, changes, wrong, heard = 0, 0, 0, 0, 0
    for day in range(60):
        rng = np.random.default_rng(day)
        truth = [p for p in (0, 1, 2, 1, 0) for _ in range(6)]
        said = recognise([batch(rng, p) for p in truth])
        names = {0: said[0], 1: said[6], 2: said[12]}
        wrong += sum(names[t] != s for t, s in zip(truth, said, strict=True))
        heard += len(truth)
        for k in range(1, len(truth)):
            if truth[k] != truth[k - 1]:
                changes += 1
                late += said[k] == said[k - 1]
            else:
                false += said[k] != said[k - 1]
    assert changes == 240
    assert late / changes < 0.02
    assert false / heard < 0.01
    assert wrong / heard < 0.03


def test_a_world_that_stays_is_not_cut_up() -> None:
    rng = np.random.default_rng(5)
    assert set(recognise([batch(rng, 0) for _ in range(150)])) == {0}


def test_models_that_came_later_help_and_do_not_confuse() -> None:
    """The edge remembers more models from round to round, so early places were judged by fewer."""
    rng = np.random.default_rng(2)
    truth = [p for p in (0, 2, 0, 2) for _ in range(5)]
    heard = []
    for k, place in enumerate(truth):
        whole = batch(rng, place)
        heard.append({name: whole[name] for name in list(whole)[: 1 + min(k // 3, 3)]})
    assert recognise(heard) == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5


def test_few_frames_are_believed_less() -> None:
    """The same mean, a little off: of four frames it is chance, of four hundred another place."""
    rng = np.random.default_rng(3)
    calm = [{"m": np.exp(1 + rng.normal(0, 0.4, 200)).tolist()} for _ in range(3)]
    off = 0.3

    def then(n: int) -> int:
        noise = rng.normal(0, 0.4, n)
        return recognise([*calm, {"m": np.exp(1 + off + noise - noise.mean()).tolist()}])[-1]

    assert then(4) == 0
    assert then(400) == 1
