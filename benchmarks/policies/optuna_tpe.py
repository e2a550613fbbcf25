"""Optuna's TPE as a policy (`pip install optuna`)."""

from __future__ import annotations

import optuna

from endedge.allocator import Known, Split, register

optuna.logging.set_verbosity(optuna.logging.WARNING)


@register("optuna-tpe")
def optuna_tpe(known: Known) -> Split:
    """Forty trials of a share, by the curves."""
    if known.budget.reason:
        return Split(0.0, 0.0)
    sampler = optuna.samplers.TPESampler(seed=int(known.rng.integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(
        lambda trial: known.worth(known.budget.with_share(trial.suggest_float("share", 0.0, 1.0))),
        n_trials=40,
    )
    split = known.budget.with_share(study.best_params["share"])
    return split if known.worth(split) > known.budget.stale else Split(0.0, 0.0)
