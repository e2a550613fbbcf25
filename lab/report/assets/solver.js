"use strict";
/* endedge.allocator.allocate in the page: the same surface, rules, search and regimes; a test holds
   it to the Python solver. Bytes, hertz, seconds; mAP in [0, 1]. */
const Solver = (() => {
  const DATA = {
    power: (x, c) => 1 - Math.pow(1 + x, -c),
    exponential: (x) => 1 - Math.exp(-x),
    logarithm: (x) => Math.log(1 + x),
    mmf4: (x, c) => 1 - 1 / (1 + Math.pow(x, c)),
    wbl4: (x, c) => 1 - Math.exp(-Math.pow(x, c)),
  };
  const MODEL = {
    exponential: (x, e) => Math.max(1 - e * Math.exp(-x), 0),
    hill: (x, h) => 1 - 1 / (1 + Math.pow(x, h)),
    power: (x, c) => (x < 1 ? Math.pow(x, c) : 1),
    weibull: (x, c) => 1 - Math.exp(-Math.pow(x, c)),
  };
  const model = (j, M) => MODEL[j.model](M / j.m0_bytes, j.model_s);
  const value = (j, U, M) => {
    const a = j.start + j.gain * DATA[j.data](U / j.u0_bytes, j.data_s), g = model(j, M);
    if (j.composition === "product") return a * g;
    if (j.composition === "additive") return a - j.depth * (1 - g);
    return j.m0 + (a - j.m0) * g;
  };
  const clip = (x, low, high) => Math.min(Math.max(x, low), high);

  /* The link and the rules as up*U + down*M <= room (allocator/problem.py). */
  function budgetOf(curves, link, rules) {
    const T = link.period_s, average = rules.objective === "average";
    const u = { ...(rules.upload_limits || curves.upload) };
    const m = { ...(rules.update_limits || curves.update) };
    const stale = rules.stale_map === null ? curves.m0 : rules.stale_map;
    let none = !(link.bandwidth_hz > 0), up, down, room, fresh, freshPerRoom = 0;
    if (rules.schedule === "pipelined") {
      up = 8 / (T * link.up_bit_per_s_per_hz);
      down = 8 / (T * link.down_bit_per_s_per_hz);
      room = link.bandwidth_hz;
      fresh = average ? 1 - rules.apply_s / T : 1;
      const left = T - rules.edge_s - rules.edge_s_per_upload_byte * u.low;
      if (left < 0 || fresh <= 0) none = true;
      else if (rules.edge_s_per_upload_byte > 0)
        u.high = Math.min(u.high, (T - rules.edge_s) / rules.edge_s_per_upload_byte);
    } else {
      const hz = Math.max(link.bandwidth_hz, 1e-300);
      up = 8 / (hz * link.up_bit_per_s_per_hz) + rules.edge_s_per_upload_byte;
      down = 8 / (hz * link.down_bit_per_s_per_hz);
      room = T - rules.edge_s - rules.apply_s;
      fresh = average ? room / T : 1;
      freshPerRoom = average ? 1 / T : 0;
    }
    none = none || up * u.low + down * m.low > room;
    return { up, down, room, u, m, fresh, freshPerRoom, stale, none };
  }

  /* The search of allocator/solve/search.py: a grid brackets the best hill, finer ones refine it, a
     parabola polishes it. */
  const even = (count) => Array.from({ length: count }, (_, i) => i / (count - 1));
  const spread = (count) => [0, ...even(count - 2).map((t) => 1 / (1 + Math.exp(14 - 28 * t))), 1];
  const SPLITS = spread(160), FINER = even(33), COARSE = spread(64), ROOMS = spread(100), FINE = even(17);

  const topOf = (values) => values.reduce((best, v, i) => (v > values[best] ? i : best), 0);
  function around(grid, i, finer, steps) {
    const low = grid[Math.max(i - steps, 0)], high = grid[Math.min(i + steps, grid.length - 1)];
    return finer.map((t) => low + (high - low) * t);
  }

  /* The points of the line of constant room, by their share of the way to its end with least package. */
  function line(q, room) {
    const updateOf = (U) => clip((room - q.up * U) / q.down, q.m.low, q.m.high);
    const low = Math.max(q.u.low, (room - q.down * q.m.high) / q.up);
    const high = Math.max(low, Math.min(q.u.high, (room - q.down * q.m.low) / q.up));
    const M = updateOf(low), more = updateOf(high) - M;
    return (share) => ({ U: low + (high - low) * share, M: M + more * share });
  }

  function bestShare(worth, at) {
    let shares = SPLITS, values, top;
    for (const finer of [FINER, FINER, null]) {
      values = shares.map((share) => worth(at(share)));
      top = topOf(values);
      if (finer) shares = around(shares, top, finer, 1);
    }
    const best = at(shares[top]), [before, here, after] = values.slice(Math.max(top - 1, 0), top + 2);
    if (top === 0 || top === shares.length - 1 || before - 2 * here + after >= 0) return best;
    const step = (0.5 * (before - after)) / (before - 2 * here + after) * (shares[1] - shares[0]);
    const polished = at(shares[top] + step);
    return worth(polished) > worth(best) ? polished : best;
  }

  /* From the best of the first grid, and from the best of those with least upload. */
  function bestRoom(worth, q, least, most) {
    const on = (used, shares) => used.flatMap((t) => shares.map(line(q, least + (most - least) * t)));
    let best;
    for (const width of [COARSE.length, 1]) {
      let shares = COARSE.slice(0, width), used = ROOMS;
      for (let k = 0; k < 6; k++) {
        const points = on(used, shares), top = topOf(points.map(worth));
        if (!best || worth(points[top]) > worth(best)) best = points[top];
        const i = Math.floor(top / shares.length), j = top % shares.length;
        shares = around(shares, j, FINE, 3);
        used = around(used, i, FINE, 3);
      }
    }
    return best;
  }

  function bestSplit(j, q, worth) {
    const kink = clip(j.m0_bytes, q.m.low, q.m.high); // beyond it a capped curve brings nothing
    const capped = j.model === "power" ? { ...q, m: { ...q.m, high: kink } } : q;
    const cost = (end) => q.up * capped.u[end] + q.down * capped.m[end];
    const most = Math.min(q.room, cost("high"));
    if (q.freshPerRoom > 0) return bestRoom(worth, capped, cost("low"), most);
    const best = bestShare(worth, line(capped, most)), left = (q.room - q.up * best.U) / q.down;
    if (best.M === capped.m.high) best.M = Math.max(best.M, Math.min(left, q.m.high));
    return best;
  }

  function allocate(curves, link, rules) {
    const q = budgetOf(curves, link, rules), j = curves.joint;
    const nothing = {
      regime: "none", upload_bytes: 0, update_bytes: 0, uplink_hz: 0, downlink_hz: 0,
      predicted_map: curves.m0, average_map: q.stale, low: curves.m0, high: curves.m0, frames: 0,
      budget_bytes: 0,
    };
    if (q.none) return nothing;
    const fresh = ({ U, M }) => q.fresh - q.freshPerRoom * (q.up * U + q.down * M);
    const worth = (p) => q.stale + (value(j, p.U, p.M) - q.stale) * fresh(p);
    const { U, M } = bestSplit(j, q, worth), average_map = worth({ U, M });
    if (!(average_map > q.stale)) return nothing;
    const hz = (bytes, efficiency) => (8 * bytes) / (link.period_s * efficiency);
    const [low, high] = interval(curves, U, M);
    const fitting = (points, key, most) => points.filter((p) => p[key] <= most * (1 + 1e-9)).pop();
    const up = fitting(curves.uploads, "upload_bytes", U);
    const down = fitting(curves.updates, "update_bytes", M);
    return {
      regime: regime(j, q, U, M), upload_bytes: U, update_bytes: M,
      uplink_hz: hz(U, link.up_bit_per_s_per_hz), downlink_hz: hz(M, link.down_bit_per_s_per_hz),
      predicted_map: clip(value(j, U, M), 0, 1), average_map, low, high,
      frames: up ? Math.floor((U * (1 + 1e-9) * up.frames) / up.upload_bytes) : 0,
      budget_bytes: down ? down.budget_bytes : 0,
    };
  }

  function regime(j, q, U, M) {
    const near = 1e-6;
    const fullModel = M >= q.m.high * (1 - near) || model(j, M) >= 1 - 1e-9;
    const fullData = U >= q.u.high * (1 - near);
    if (fullModel && fullData) return "saturated";
    if (fullModel) return "model saturated";
    if (fullData) return "data saturated";
    if (M <= q.m.low * (1 + near)) return "corner data";
    if (U <= q.u.low * (1 + near)) return "corner model";
    return "interior";
  }

  /* Where x lies among rising levels: the one below, and the weight of the rise from there: 4t(1 - t)
     between two, twice the last rise one step beyond (Monotone.room). */
  function place(levels, x) {
    const last = levels.length - 1, at = Math.log(Math.max(x, 1));
    if (last < 1) return { i: 0, next: 0, share: 0, weight: 0 };
    let i = 0;
    while (i < last - 1 && x >= levels[i + 1]) i++;
    const from = Math.log(Math.max(levels[i], 1)), to = Math.log(Math.max(levels[i + 1], 1));
    const t = (at - from) / Math.max(to - from, 1e-12), share = clip(t, 0, 1);
    const weight = 4 * share * (1 - share) + 2 * Math.min(Math.abs(t - share), 1);
    return { i, next: i + 1, share, weight };
  }

  /* Standard deviation of what the curve is off between measured levels (accuracy/width.py). */
  function deviation(curves, U, M) {
    const { reference: known, width } = curves;
    const u = place(known.upload_bytes, U), m = place(known.update_bytes, M);
    const at = (i, s, j, t) => {
      const row = (k) => known.map[k][j.i] * (1 - t) + known.map[k][j.next] * t;
      return row(i.i) * (1 - s) + row(i.next) * s;
    };
    const up = (at(u, 1, m, m.share) - at(u, 0, m, m.share)) * u.weight;
    const down = (at(u, u.share, m, 1) - at(u, u.share, m, 0)) * m.weight;
    return Math.hypot(width.upload * up, width.update * down);
  }

  /* 90 % interval: of the bootstrap replicates (NumPy's linear quantiles), and of what levels left
     out were off beyond them (1.645: the normal quantile of 95 %). */
  function interval(curves, U, M) {
    const draws = curves.replicates.map((j) => clip(value(j, U, M), 0, 1)).sort((a, b) => a - b);
    if (!draws.length) return [NaN, NaN];
    const quantile = (p) => {
      const at = p * (draws.length - 1), i = Math.floor(at), next = Math.min(i + 1, draws.length - 1);
      return draws[i] + (draws[next] - draws[i]) * (at - i);
    };
    const middle = quantile(0.5), { scale } = curves.width;
    const more = 1.6448536269514722 * deviation(curves, U, M);
    return [
      clip(middle - scale * Math.hypot(middle - quantile(0.05), more), 0, 1),
      clip(middle + scale * Math.hypot(quantile(0.95) - middle, more), 0, 1),
    ];
  }

  return { allocate, value };
})();
