"""Lies about edge/server/ and end/client/: rounds over a socket."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "a stored batch counts twice",
        "edge/server/journal.py",
        "upload_bytes=self.state.upload_bytes + size,",
        "upload_bytes=self.state.upload_bytes + 2 * size,",
        "bytes of the uplink are counted twice",
        ("tests/edge/server/test_journal.py",),
    ),
    Lie(
        "missed rounds are not counted",
        "edge/server/journal.py",
        'changes |= {"missed": self.state.missed + 1}',
        'changes |= {"missed": self.state.missed}',
        "lost rounds go unseen",
        ("tests/edge/server/test_journal.py",),
    ),
    Lie(
        "a round is forgotten at a restart",
        "edge/server/journal.py",
        "            if self.offer.round_index > self.state.stored_round:",
        "            if False:",
        "an upload that was stored is not counted",
        ("tests/edge/server/test_journal.py",),
    ),
    Lie(
        "duplicates are new bytes",
        "edge/server/journal.py",
        "        return len(fresh)\n",
        "        return len(data)\n",
        "bytes that came twice are counted twice",
        ("tests/edge/server/test_journal.py",),
    ),
    Lie(
        "the next round does not wait",
        "edge/server/journal.py",
        "return pending[0] if pending and self.ready_round() is None else None",
        "return pending[0] if pending else None",
        "a delta is made against a model that the device does not run yet",
        ("tests/edge/server/test_journal.py",),
    ),
    Lie(
        "another device's model",
        "lab/loop/adaptation.py",
        "store = Store(models / job.device_id)",
        'store = Store(models / "everybody")',
        "a device is answered from another's rounds",
        ("tests/lab/loop/test_memory.py",),
    ),
    Lie(
        "the newest model is the base",
        "lab/loop/adaptation.py",
        "base = earlier.get(job.base_round)",
        "base = earlier.get(max(earlier, default=0))",
        "a delta is made against a model that the device may not have",
        ("tests/lab/loop/test_memory.py",),
    ),
    Lie(
        "a package beyond its budget",
        "edge/server/service.py",
        "if not 0 < len(package) <= budget:",
        "if not 0 < len(package):",
        "the downlink carries more than the device offered",
        ("tests/edge/server/test_service.py",),
    ),
    Lie(
        "an unsigned package is applied",
        "end/client/apply.py",
        '        except (InvalidSignature, ValueError):\n            raise BadInput("package is not signed by the edge of this device") from None',
        "        except (InvalidSignature, ValueError):\n            pass",
        "a device runs what anybody sent",
        ("tests/end/client/test_apply.py",),
    ),
    Lie(
        "a replayed package is applied",
        "end/client/apply.py",
        "if ready.round_index <= self.round_index:",
        "if ready.round_index < 0:",
        "a device goes back to an old model",
        ("tests/end/client/test_apply.py",),
    ),
    Lie(
        "the device reports any mAP",
        "edge/server/session.py",
        "if not (math.isnan(value) or 0 <= value <= 1):",
        "if False:",
        "an accuracy above 1 is kept",
        ("tests/edge/server/test_words.py",),
    ),
    Lie(
        "compute is shared unfairly",
        "edge/server/jobs.py",
        "self._used_s[device_id] += seconds",
        "self._used_s[device_id] += 0.0",
        "the device that has used most goes first",
        ("tests/edge/server/test_jobs.py",),
    ),
    Lie(
        "received is sent",
        "edge/server/monitor.py",
        '"message bytes received", lambda row: row.received_bytes)',
        '"message bytes received", lambda row: row.sent_bytes)',
        "the operator sees the downlink in place of the uplink",
        ("tests/edge/server/test_monitor.py",),
    ),
    Lie(
        "frames are batches",
        "edge/server/monitor.py",
        '"frames stored", lambda row: row.frames)',
        '"frames stored", lambda row: row.batches)',
        "a figure of the operator is another's",
        ("tests/edge/server/test_monitor.py",),
    ),
]
