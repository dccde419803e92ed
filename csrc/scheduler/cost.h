// What a step costs on this engine: seconds = a + b * tokens + c * sequences, fitted while it runs.
//
// Recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10), in plain doubles in
// one order of operations, without fused multiply-add: src/wattwork/scheduler/cost.py gets the same bits. Tokens and
// sequences are scaled by their bounds, so that the three columns are of one size.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace ww {

class StepCost {
 public:
  StepCost(int32_t most_tokens, int32_t most_seqs) : scale_{1, 1.0 / most_tokens, 1.0 / most_seqs} {}

  void observe(int64_t tokens, int64_t seqs, int64_t ns) {
    const std::array<double, 3> x{1, static_cast<double>(tokens) * scale_[1], static_cast<double>(seqs) * scale_[2]};
    std::array<double, 3> gain;
    for (size_t i = 0; i < 3; ++i) gain[i] = p_[i][0] * x[0] + p_[i][1] * x[1] + p_[i][2] * x[2];
    const double forget = p_[0][0] + p_[1][1] + p_[2][2] < kMostVariance ? kForget : 1;
    const double norm = forget + (x[0] * gain[0] + x[1] * gain[1] + x[2] * gain[2]);
    const double error =
        static_cast<double>(ns) * 1e-9 - (theta_[0] * x[0] + theta_[1] * x[1] + theta_[2] * x[2]);
    for (size_t i = 0; i < 3; ++i) theta_[i] = theta_[i] + gain[i] / norm * error;
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = i; j < 3; ++j) p_[i][j] = p_[j][i] = (p_[i][j] - gain[i] / norm * gain[j]) / forget;
    ++steps_;
  }

  bool known() const { return steps_ >= kStepsToKnow; }
  std::array<double, 3> coefficients() const {  // a, b, c in seconds; none below zero
    std::array<double, 3> c;
    for (size_t i = 0; i < 3; ++i) c[i] = std::max(theta_[i], 0.0) * scale_[i];
    return c;
  }

  // Seconds for a request alone on the engine: its prompt in `prefills` steps, then the other output tokens.
  double alone_s(int64_t prefills, int64_t n_prompt, int64_t max_tokens) const {
    const auto [a, b, c] = coefficients();
    const auto steps = static_cast<double>(prefills + max_tokens - 1);
    return steps * (a + c) + b * static_cast<double>(n_prompt + max_tokens - 1);
  }

 private:
  static constexpr double kForget = 0.99;        // half a weight after 69 steps
  static constexpr double kVariance = 1e3;       // before the first step
  static constexpr double kMostVariance = 1e6;  // beyond it nothing is forgotten, or what no step tells of overflows
  static constexpr int64_t kStepsToKnow = 16;

  std::array<double, 3> scale_, theta_{};
  double p_[3][3] = {{kVariance, 0, 0}, {0, kVariance, 0}, {0, 0, kVariance}};
  int64_t steps_ = 0;
};

}  // namespace ww
