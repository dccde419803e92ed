"""What a step costs on this engine: seconds = a + b * tokens + c * sequences, fitted while it runs.

The twin of `csrc/scheduler/cost.h`, which names the method: the same operations in the same order, so the same bits.
"""

from __future__ import annotations

FORGET = 0.99
VARIANCE, MOST_VARIANCE = 1e3, 1e6
STEPS_TO_KNOW = 16


class StepCost:
    """Recursive least squares with exponential forgetting, over three columns scaled to one size."""

    def __init__(self, most_tokens: int, most_seqs: int) -> None:
        self.scale = (1.0, 1.0 / most_tokens, 1.0 / most_seqs)
        self.theta = [0.0, 0.0, 0.0]
        self.p = [[VARIANCE if i == j else 0.0 for j in range(3)] for i in range(3)]
        self.steps = 0

    def observe(self, tokens: int, seqs: int, ns: int) -> None:
        x = (1.0, tokens * self.scale[1], seqs * self.scale[2])
        p, theta = self.p, self.theta
        gain = [p[i][0] * x[0] + p[i][1] * x[1] + p[i][2] * x[2] for i in range(3)]
        forget = FORGET if p[0][0] + p[1][1] + p[2][2] < MOST_VARIANCE else 1.0
        norm = forget + (x[0] * gain[0] + x[1] * gain[1] + x[2] * gain[2])
        error = ns * 1e-9 - (theta[0] * x[0] + theta[1] * x[1] + theta[2] * x[2])
        for i in range(3):
            theta[i] = theta[i] + gain[i] / norm * error
        for i in range(3):
            for j in range(i, 3):
                p[i][j] = p[j][i] = (p[i][j] - gain[i] / norm * gain[j]) / forget
        self.steps += 1

    @property
    def known(self) -> bool:
        return self.steps >= STEPS_TO_KNOW

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """a, b and c in seconds; none below zero."""
        a, b, c = (max(theta, 0.0) * scale for theta, scale in zip(self.theta, self.scale, strict=True))
        return a, b, c

    def alone_s(self, prefills: int, n_prompt: int, max_tokens: int) -> float:
        """Seconds for a request alone on the engine: its prompt in `prefills` steps, then the other output tokens."""
        a, b, c = self.coefficients
        return float(prefills + max_tokens - 1) * (a + c) + b * float(n_prompt + max_tokens - 1)
