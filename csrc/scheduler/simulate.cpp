#include "scheduler/simulate.h"

#include <algorithm>
#include <memory>

namespace ww {
namespace {

constexpr int64_t kLookEvery = 1 << 16;  // events

// Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014.
uint64_t splitmix64(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

struct Device {
  explicit Device(const SchedulerConfig& config) : scheduler(config) { scheduler.plan_only(); }
  // When it is to be looked at next.
  int64_t next_ns() const { return std::min(step_end_ns, wake_ns); }

  Scheduler scheduler;
  std::vector<int64_t> request_of{-1};  // by id
  int64_t step_end_ns = kNever;         // of the step under way
  int64_t wake_ns = kNever;             // when something is due, or a held batch goes
  int64_t outstanding = 0;              // tokens
  int64_t busy_ns = 0;
};

class Simulation {
 public:
  Simulation(const SchedulerConfig& config, const SimArrivals& arrivals, const SimCost& cost, int devices)
      : arrivals_(arrivals), cost_(cost), random_(cost.seed), next_token_(static_cast<size_t>(config.max_num_seqs)) {
    for (int i = 0; i < devices; ++i) devices_.push_back(std::make_unique<Device>(config));
    result_.served.requests.reserve(static_cast<size_t>(arrivals.n));
  }

  SimResult run(const std::function<bool()>& stop) {
    for (int64_t events = 0; !(stop && events % kLookEvery == 0 && stop()); ++events) {
      int64_t now_ns = arrived_ < arrivals_.n ? arrivals_.time_ns[arrived_] : kNever;
      for (const auto& d : devices_) now_ns = std::min(now_ns, d->next_ns());
      if (now_ns == kNever) break;
      for (const auto& d : devices_) advance(*d, now_ns);
      while (arrived_ < arrivals_.n && arrivals_.time_ns[arrived_] <= now_ns) arrive(now_ns);
      for (const auto& d : devices_) begin(*d, now_ns);
    }
    for (const auto& d : devices_)
      result_.devices.push_back({d->scheduler.counters(), d->scheduler.decision_hash(), d->busy_ns});
    return std::move(result_);
  }

 private:
  void advance(Device& d, int64_t now_ns) {
    if (d.step_end_ns <= now_ns) {
      d.scheduler.complete(now_ns, next_token_.data());
      d.step_end_ns = kNever;
      result_.end_ns = now_ns;
    }
    if (d.wake_ns <= now_ns) d.scheduler.expire(now_ns);
    take_events(d);
  }

  void arrive(int64_t now_ns) {
    const auto i = static_cast<size_t>(arrived_++);
    const auto least = std::min_element(devices_.begin(), devices_.end(), [](const auto& a, const auto& b) {
      return a->outstanding < b->outstanding;
    });
    Device& d = **least;
    const int32_t n = arrivals_.prompt_tokens[i], n_output = arrivals_.output_tokens[i];
    const auto from_now = [&](const int64_t* spans) { return spans && spans[i] ? now_ns + spans[i] : 0; };
    RequestParams params{n_output, -1, {0, 1, 1, 0, 0}};
    params.priority = arrivals_.priority ? arrivals_.priority[i] : 0;
    params.tenant = arrivals_.tenant ? arrivals_.tenant[i] : 0;
    params.deadline_ns = from_now(arrivals_.deadline_ns);
    params.timeout_ns = from_now(arrivals_.timeout_ns);
    const int64_t id = d.scheduler.submit(now_ns, nullptr, n, params);
    result_.served.arrived(now_ns, n, static_cast<int32_t>(least - devices_.begin()), id);
    if (id < 0) return;
    d.request_of.push_back(static_cast<int64_t>(i));
    d.outstanding += int64_t{n} + n_output;
    d.wake_ns = d.scheduler.next_wakeup_ns();
  }

  void begin(Device& d, int64_t now_ns) {
    if (d.step_end_ns == kNever && d.scheduler.has_work()) {
      if (const ww_batch* batch = d.scheduler.schedule(now_ns)) {
        const int64_t ns = step_ns(*batch);
        d.step_end_ns = now_ns + ns;
        d.busy_ns += ns;
      }
      take_events(d);
    }
    // A wheel's time may lie before the first timer's; so it comes nearer each time, but never stands.
    d.wake_ns = std::max(d.scheduler.next_wakeup_ns(), now_ns + 1);
  }

  int64_t step_ns(const ww_batch& batch) {
    double s = cost_.step_s + cost_.per_token_s * batch.n_tokens + cost_.per_sequence_s * batch.n_seqs;
    if (cost_.jitter != 0) {
      const double even = static_cast<double>(splitmix64(random_) >> 11) * 0x1p-53;
      s = s * (1 + cost_.jitter * (2 * even - 1));
    }
    return std::max<int64_t>(1, static_cast<int64_t>(s * 1e9 + 0.5));
  }

  void take_events(Device& d) {
    if (d.scheduler.events().empty()) return;
    d.scheduler.take_events(events_);
    Served& served = result_.served;
    const auto request = [&](uint64_t id) -> ServedRequest& {
      return served.requests[static_cast<size_t>(d.request_of[id])];
    };
    for (const TokenEvent& e : events_.tokens) served.add(request(e.id), e);
    for (const EndEvent& e : events_.ends) {
      served.add(request(e.id), e);
      d.outstanding -= int64_t{e.n_prompt} + arrivals_.output_tokens[d.request_of[e.id]];
    }
  }

  const SimArrivals& arrivals_;
  const SimCost& cost_;
  uint64_t random_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<int32_t> next_token_;  // all 0
  int64_t arrived_ = 0;
  Events events_;
  SimResult result_;
};

}  // namespace

SimResult simulate(const SchedulerConfig& config, const SimArrivals& arrivals, const SimCost& cost, int devices,
                   const std::function<bool()>& stop) {
  return Simulation(config, arrivals, cost, devices).run(stop);
}

}  // namespace ww
