"""Lies about allocator/: curves, policies, solvers."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "rounding knows the accuracy",
        "allocator/fitting/surface.py",
        "        return int(rows[order[-1]])",
        "        return int(rows[np.argmax(np.nan_to_num(self.map[rows]))])",
        "what is executed depends on what was measured",
        ("tests/lab/benchmark/test_executor.py",),
    ),
    Lie(
        "uploads are rounded up",
        "allocator/fitting/surface.py",
        "fits = among & (self.upload_bytes <= upload_bytes * (1 + near))",
        "fits = among & (self.upload_bytes <= upload_bytes * 1.5)",
        "a policy executes more than the link carries",
        ("tests/allocator/fitting/test_surface.py",),
    ),
    Lie(
        "a named codec is ignored",
        "allocator/fitting/surface.py",
        "among = np.ones(len(self), dtype=bool) if not codec else self.codec == codec",
        "among = np.ones(len(self), dtype=bool)",
        "a policy that names a codec gets another",
        ("tests/allocator/fitting/test_surface.py",),
    ),
    Lie(
        "robust is an optimist",
        "allocator/policies.py",
        "return _at(known, np.quantile(drawn, 0.1, axis=0))",
        "return _at(known, np.quantile(drawn, 0.9, axis=0))",
        "the robust policy takes the upper decile",
        ("tests/allocator/test_policies.py",),
    ),
    Lie(
        "the robust allocator is an optimist",
        "allocator/solve/robust.py",
        "return np.asarray(np.quantile(drawn, quantile, axis=0))",
        "return np.asarray(np.quantile(drawn, 1 - quantile, axis=0))",
        "a lower quantile is an upper one",
        ("tests/allocator/solve/test_robust_economics_regimes.py",),
    ),
    Lie(
        "policies see the measurements",
        "allocator/policies.py",
        "        known = replace(known, points=replace(known.points, map=blind, map_error=blind))",
        "        pass",
        "a policy without hindsight is given the results",
        ("tests/allocator/test_policies.py",),
    ),
    Lie(
        "an overdrawn split is carried",
        "allocator/policies.py",
        "if not isinstance(split, Split) or not known.budget.allows(split):",
        "if not isinstance(split, Split):",
        "a policy may send more than the link carries",
        ("tests/allocator/test_policies.py",),
    ),
    Lie(
        "the edge's time is not paid",
        "allocator/problem.py",
        'room, unit = period - rules.edge_s - rules.apply_s, "s"',
        'room, unit = period - rules.apply_s, "s"',
        "a sequential period leaves out the edge's work",
        ("tests/allocator/solve/test_optimum.py",),
    ),
    Lie(
        "the downlink is priced as the uplink",
        "allocator/solve/economics.py",
        "downlink=prices.down_per_gb * update_bytes / 1e9",
        "downlink=prices.up_per_gb * update_bytes / 1e9",
        "the cost of packages is the uplink's",
        ("tests/allocator/solve/test_robust_economics_regimes.py",),
    ),
]
