#include "bindings/scheduler.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace ww::bindings {

namespace {

const char* const kReleaseNames[kReleases] = {"running", "no_delay", "draining", "full", "delay"};

}  // namespace

SchedulerConfig config_of(const py::object& c) {
  return {c.attr("max_num_seqs").cast<int32_t>(),        c.attr("max_num_batched_tokens").cast<int32_t>(),
          c.attr("max_num_queued_reqs").cast<int32_t>(), c.attr("max_num_queued_tokens").cast<int64_t>(),
          c.attr("block_size").cast<int32_t>(),          c.attr("num_blocks").cast<int32_t>(),
          c.attr("max_model_len").cast<int32_t>(),       c.attr("max_queue_delay_us").cast<int64_t>(),
          c.attr("max_overtakes").cast<int32_t>(),        c.attr("enable_prefix_sharing").cast<bool>()};
}

py::dict counters_of(const SchedulerCounters& c) {
  py::dict d;
  const char* outcomes[] = {"finished", "cancelled", "timed_out", "rejected", "failed"};
  for (int i = 0; i < 5; ++i) d[outcomes[i]] = c.outcomes[i];
  d["num_requests_running"] = c.running;
  d["num_requests_waiting"] = c.waiting;
  d["num_queued_tokens"] = c.queued_tokens;
  d["steps"] = c.steps;
  d["prompt_tokens"] = c.prompt_tokens;
  d["prefix_shared_tokens"] = c.prefix_shared_tokens;
  d["output_tokens"] = c.output_tokens;
  d["num_preemptions"] = c.preemptions;
  d["kv_blocks_used"] = c.kv_blocks_used;
  d["deadline_misses"] = c.deadline_misses;
  py::dict releases;
  for (int i = 0; i < kReleases; ++i) releases[kReleaseNames[i]] = c.releases[i];
  d["releases"] = releases;
  d["step_cost_s"] = py::make_tuple(c.step_cost_s[0], c.step_cost_s[1], c.step_cost_s[2]);
  return d;
}

RequestParams params_of(int32_t max_tokens, int32_t stop_token_id, const py::object& s, int32_t priority,
                        uint64_t tenant, int64_t deadline_ns, int64_t timeout_ns) {
  RequestParams params{max_tokens, stop_token_id, {0, 1, 1, 0, 0}, priority, tenant, deadline_ns, timeout_ns};
  if (!s.is_none())
    params.sampling = {s.attr("temperature").cast<float>(), s.attr("top_p").cast<float>(),
                       s.attr("repetition_penalty").cast<float>(), s.attr("top_k").cast<int32_t>(),
                       s.attr("seed").cast<uint64_t>()};
  return params;
}

py::object batch_of(const ww_batch& b, int32_t block_size) {
  const py::module_ base = py::module_::import("wattwork.engines.base");
  int32_t columns = 1;
  for (int32_t i = 0; i < b.n_seqs; ++i)
    columns = std::max(columns, (b.ctx_len[i] + b.q_start[i + 1] - b.q_start[i] + block_size - 1) / block_size);
  columns = std::min(columns, b.max_blocks);
  py::array_t<int32_t> table({b.n_seqs, columns});
  for (int32_t i = 0; i < b.n_seqs; ++i)
    std::copy_n(b.block_table + int64_t{i} * b.max_blocks, columns, table.mutable_data(i, 0));
  py::object sampling = py::none();
  if (b.sampling)
    sampling = py::array(py::dtype::from_args(base.attr("SAMPLING")), {b.n_seqs}, {sizeof(ww_sampling)}, b.sampling);
  return base.attr("Batch")(copied(b.tokens, b.n_tokens), copied(b.q_start, b.n_seqs + 1),
                            copied(b.ctx_len, b.n_seqs), table, copied(b.slot_map, b.n_tokens),
                            copied(b.want_logits, b.n_seqs), sampling);
}

py::tuple end_of(const EndEvent& e) {
  return py::make_tuple(e.id, static_cast<int>(e.outcome), e.n_prompt, e.n_output, e.submitted_ns, e.first_token_ns,
                        e.finished_ns, e.message, e.deadline_missed);
}

namespace {

py::tuple events_of(const Events& events) {
  py::list tokens(events.tokens.size()), ends(events.ends.size());
  size_t i = 0;
  for (const TokenEvent& e : events.tokens) tokens[i++] = py::make_tuple(e.id, e.token, e.time_ns);
  i = 0;
  for (const EndEvent& e : events.ends) ends[i++] = end_of(e);
  return py::make_tuple(tokens, ends);
}

// Steps of an engine that answers `token` at once: the cost of the scheduler alone.
int64_t run_steps(Scheduler& s, int64_t now_ns, int64_t n, int64_t step_ns, int32_t token) {
  const std::vector<int32_t> next(static_cast<size_t>(s.config().max_num_seqs), token);
  Events events;
  int64_t done = 0;
  for (; done < n && s.schedule(now_ns); ++done) {
    s.complete(now_ns += step_ns, next.data());
    s.take_events(events);
  }
  return done;
}

void bind_core(py::module_& m) {
  py::class_<Scheduler>(m, "SchedulerCore")
      .def(py::init([](const py::object& config) { return std::make_unique<Scheduler>(config_of(config)); }))
      .def("submit",
           [](Scheduler& s, int64_t now_ns, const Int32s& tokens, int32_t max_tokens, int32_t stop_token_id,
              const py::object& sampling, int32_t priority, uint64_t tenant, int64_t deadline_ns, int64_t timeout_ns) {
             return s.submit(now_ns, tokens.data(), static_cast<int32_t>(tokens.size()),
                             params_of(max_tokens, stop_token_id, sampling, priority, tenant, deadline_ns, timeout_ns));
           },
           py::arg("now_ns"), py::arg("tokens"), py::arg("max_tokens"), py::arg("stop_token_id") = -1,
           py::arg("sampling") = py::none(), py::arg("priority") = 0, py::arg("tenant") = 0,
           py::arg("deadline_ns") = 0, py::arg("timeout_ns") = 0)
      .def("cancel", &Scheduler::cancel)
      .def("expire", &Scheduler::expire)
      .def("next_wakeup_ns", &Scheduler::next_wakeup_ns)
      .def_property_readonly("release", [](const Scheduler& s) { return kReleaseNames[static_cast<int>(s.release())]; })
      .def("schedule",
           [](Scheduler& s, int64_t now_ns) -> py::object {
             const ww_batch* batch = s.schedule(now_ns);
             return batch ? batch_of(*batch, s.config().block_size) : py::none();
           })
      .def("complete",
           [](Scheduler& s, int64_t now_ns, const Int32s& next_token) {
             if (next_token.size() > s.config().max_num_seqs) throw std::invalid_argument("too many next tokens");
             std::vector<int32_t> next(static_cast<size_t>(s.config().max_num_seqs), -1);
             std::copy_n(next_token.data(), next_token.size(), next.begin());
             s.complete(now_ns, next.data());
           })
      .def("fail", &Scheduler::fail)
      .def("set_draining", &Scheduler::set_draining)
      .def("take_events",
           [](Scheduler& s) {
             Events events;
             s.take_events(events);
             return events_of(events);
           })
      .def("run_steps", &run_steps, py::call_guard<py::gil_scoped_release>())
      .def("counters", [](const Scheduler& s) { return counters_of(s.counters()); })
      .def("record", &Scheduler::record)
      .def("stop_recording", &Scheduler::stop_recording)
      .def("check", &Scheduler::check)
      .def_property_readonly("in_flight", &Scheduler::in_flight)
      .def_property_readonly("has_work", &Scheduler::has_work)
      .def_property_readonly("decision_hash", &Scheduler::decision_hash);
}

}  // namespace

void bind_scheduler(py::module_& m) { bind_core(m); }

}  // namespace ww::bindings
