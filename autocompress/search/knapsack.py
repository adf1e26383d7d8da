"""Of each group one option, so that the summed loss is least and all summed costs are inside their limits.

The knapsack problem with several choices and limits, solved exactly as a mixed-integer program by HiGHS (Huangfu & Hall
2018). Puzzle (Bercovich et al. 2025) chooses the blocks of a language model so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import block_diag

Floats = npt.NDArray[np.float64]


def solve(losses: Sequence[Floats], costs: Sequence[Floats], limits: Floats) -> tuple[int, ...] | None:
    """Return the option of each group, or ``None`` if no choice is inside the limits.

    Args:
        losses: Of each group, at least one, (options,); any sign, as they only compare.
        costs: Of each group, (options x limits), in the limits' units.
        limits: (limits,) of the sums over groups; infinite ones limit nothing.
    """
    one_each = block_diag([np.ones((1, len(loss))) for loss in losses], format="csr")
    constraints = [LinearConstraint(one_each, 1, 1)]
    held = np.isfinite(limits)
    if held.any():
        # In shares of a limit: the solver's tolerances mean nothing where bytes stand beside milliseconds.
        unit = np.where(limits[held] != 0, np.abs(limits[held]), 1.0)
        shares = np.concatenate([cost[:, held] for cost in costs]).T / unit[:, None]
        constraints.append(LinearConstraint(shares, -np.inf, limits[held] / unit))
    found = milp(
        np.concatenate(losses), integrality=1, bounds=(0, 1), constraints=constraints, options={"mip_rel_gap": 0}
    )
    if found.x is None:
        return None
    ends = np.cumsum([len(loss) for loss in losses])[:-1]
    return tuple(int(part.argmax()) for part in np.split(found.x, ends))
