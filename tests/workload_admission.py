"""Random admission for `tests.comparison` and `tests.workload_money`, and the models that participants declare.

Most venues have no caps, and of the others most participants get in and trade: where all are refused nothing is
compared any more.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from exchange.config import AdmissionConfig, InstrumentConfig
from exchange.types import MAX_VENDORS
from tests.oracle_records import Command

MS = 1_000_000
VENDORS = (1, 2, 3, 7, MAX_VENDORS - 1)
MOST_MODEL = 2**31 - 1
MODELS = tuple(
    (vendor, model, version)
    for vendor in VENDORS
    for model, version in ((0, 0), (1, 1), (1, 2), (MOST_MODEL, MOST_MODEL))
)


def random_admission(
    rng: np.random.Generator, instruments: Sequence[InstrumentConfig], accounts: int, windows_ns: tuple[int, ...]
) -> dict[str, Any]:
    """Settings of an EngineConfig: none most of the time."""

    def one_of(*values: int) -> int:
        return int(rng.choice(values))

    settings: dict[str, Any] = {"explanations_required": bool(rng.random() < 0.12)}
    if rng.random() > 0.45:
        return settings
    admission: dict[str, Any] = {}
    which = one_of(1, 2, 4, 4, 8, 8, 8, 16, 16, 16, 31, 6, 12, 20, 24)
    if all(each.batch_interval_ns for each in instruments):
        # Where nobody takes there is no flow to cap.
        which = which & ~8 or 4
    if which & 1:
        admission["declaration_required"] = True
    if which & 2:
        passed = [each for each in MODELS if rng.random() < 0.7]
        if rng.random() < 0.05:
            passed = []
        admission["validated"] = tuple(passed)
    if which & 4:
        admission["vendor_agents_bps"] = one_of(
            1,
            *(min(9_999, members * 10_000 // accounts + more) for members in (1, 1, 2, 3) for more in (0, 1)),
            9_999,
        )
    if which & 16:
        admission["vendor_capital_bps"] = one_of(500, 2_000, 3_000, 3_000, 5_000, 5_000, 8_000, 9_999)
    if which & 8:
        admission["vendor_flow_bps"] = one_of(1, 500, 2_000, 3_000, 3_000, 5_000, 5_000, 8_000, 9_999)
        admission["flow_window_ns"] = one_of(*windows_ns)
        admission["flow_floor"] = one_of(0, 1, 500, 10_000, 100_000, 1 << 30, 1 << 43, 1 << 60)
    settings["admission"] = AdmissionConfig(**admission)
    return settings


class Declared:
    """What the participants of one session declare: everybody has a usual model, some of them the same."""

    def __init__(self, rng: np.random.Generator, admission: AdmissionConfig | None, accounts: int) -> None:
        self.rng = rng
        passed = list(admission.validated or ()) if admission else []
        undeclared = float(rng.choice([0.0, 0.2, 0.4] if admission else [0.5, 0.9]))
        alike = float(rng.choice([0.0, 0.3, 0.8]))
        first = MODELS[int(rng.integers(len(MODELS)))]
        self.usual: list[tuple[int, int, int]] = []
        for _ in range(accounts):
            among = passed if passed and rng.random() < 0.85 else MODELS
            model = among[int(rng.integers(len(among)))]
            if rng.random() < alike and not passed:
                model = (first[0], *model[1:])
            self.usual.append((0, 0, 0) if rng.random() < undeclared else model)

    def declare(self, command: Command) -> Command:
        """A logon with numbers: the usual ones of its account, another's, or what no numbers are."""
        draw = float(self.rng.random())
        usual = self.usual[command.account] if 0 <= command.account < len(self.usual) else (0, 0, 0)
        if draw < 0.1:
            usual = MODELS[int(self.rng.integers(len(MODELS)))]
        elif draw < 0.15:
            usual = (0, 5, 6)
        elif draw < 0.2:
            numbers = list(usual)
            wrong = (-1, MAX_VENDORS, MOST_MODEL + 1, -(2**63), 2**63 - 1, 1 << 32, 1 << 40)
            numbers[int(self.rng.integers(3))] = wrong[int(self.rng.integers(len(wrong)))]
            usual = (numbers[0], numbers[1], numbers[2])
        vendor, model, version = usual
        return command._replace(target_order_id=vendor, order_type=model, price_ticks=version)
