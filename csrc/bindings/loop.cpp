// The loop as Python meets it: engines written in Python or not, and the handles of the requests that live.
#include "runtime/loop.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <structmember.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/scheduler.h"
#include "decoder/decoder.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

// A Python StepEngine behind the C interface. An exception becomes a failed batch, its words kept for the requests.
struct PythonEngine {
  py::object engine, out;
  int32_t block_size;
  std::string error;

  template <class F>
  int guarded(F&& f) {
    py::gil_scoped_acquire gil;
    try {
      f();
      return WW_OK;
    } catch (py::error_already_set& e) {
      error = said_by(e);
    } catch (const std::exception& e) {
      error = e.what();
    }
    out = py::none();
    return WW_E_FAILED;
  }

  static int step(void* self, const ww_batch* batch, ww_out* into) {
    auto& e = *static_cast<PythonEngine*>(self);
    return e.guarded([&] {
      e.out = py::module_::import("wattwork.engines.base").attr("Out")(copied(into->next_token, batch->n_seqs));
      e.engine.attr("step")(batch_of(*batch, e.block_size), e.out);
      e.engine.attr("sync")();
      const auto next = e.out.attr("next_token").cast<Int32s>();
      if (next.size() != batch->n_seqs) throw std::runtime_error("the engine changed the length of out.next_token");
      std::copy_n(next.data(), batch->n_seqs, into->next_token);
      e.out = py::none();
    });
  }
  static int sync(void*) { return WW_OK; }
};

LoopEngine python_engine(const py::object& engine, int32_t block_size) {
  const std::shared_ptr<PythonEngine> held(new PythonEngine{engine, py::none(), block_size, {}}, [](PythonEngine* e) {
    py::gil_scoped_acquire gil;
    delete e;
  });
  return {{held.get(), &PythonEngine::step, &PythonEngine::sync}, held, [p = held.get()](int) { return p->error; }};
}

LoopEngine native_engine(uintptr_t address, const py::object& owner) {
  const std::shared_ptr<py::object> held(new py::object(owner), [](py::object* o) {
    py::gil_scoped_acquire gil;
    delete o;
  });
  std::function<std::string(int)> describe;
  if (py::isinstance<decoder::Decoder>(owner))
    describe = [ours = owner.cast<decoder::Decoder*>()](int) { return ours->error(); };
  return {*reinterpret_cast<const ww_engine*>(address), held, describe};
}

constexpr const char* kModes[] = {"gap", "corun", "off"};

BackMode mode_of(const std::string& name) {
  for (int i = 0; i < 3; ++i)
    if (name == kModes[i]) return static_cast<BackMode>(i);
  throw std::invalid_argument("there is no such back_mode");
}

// What submit() answers to arguments that Python has to look at first; wattwork.scheduler.twin.Reject has it, too.
constexpr int64_t kNotPlain = -100;

// An int that is no subclass's, from `least` to `most`.
bool plain(PyObject* o, int64_t least, int64_t most, int64_t& value) {
  if (!PyLong_CheckExact(o)) return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(o, &overflow);
  return !overflow && least <= value && value <= most;
}

template <class T>
bool take_ids(const py::array& array, int64_t vocab, std::vector<int32_t>& into) {
  const T* from = static_cast<const T*>(array.data());
  for (py::ssize_t i = 0; i < array.size(); ++i) {
    if (from[i] < 0 || from[i] >= vocab) return false;
    into.push_back(static_cast<int32_t>(from[i]));
  }
  return true;
}

bool plain_prompt(py::handle tokens, int64_t vocab, std::vector<int32_t>& into) {
  into.clear();
  if (PyList_CheckExact(tokens.ptr()) || PyTuple_CheckExact(tokens.ptr())) {
    const py::ssize_t n = PySequence_Fast_GET_SIZE(tokens.ptr());
    PyObject** items = PySequence_Fast_ITEMS(tokens.ptr());
    for (py::ssize_t i = 0; i < n; ++i) {
      int64_t id;
      if (!plain(items[i], 0, vocab - 1, id)) return false;
      into.push_back(static_cast<int32_t>(id));
    }
  } else {
    if (!py::isinstance<py::array>(tokens)) return false;
    const auto array = py::reinterpret_borrow<py::array>(tokens);
    if (array.ndim() != 1 || !(array.flags() & py::array::c_style)) return false;
    const bool narrow = py::isinstance<py::array_t<int32_t>>(array);
    if (!narrow && !py::isinstance<py::array_t<int64_t>>(array)) return false;
    if (!(narrow ? take_ids<int32_t>(array, vocab, into) : take_ids<int64_t>(array, vocab, into))) return false;
  }
  return !into.empty() && into.size() <= size_t{std::numeric_limits<int32_t>::max()};
}

// A loop and the handles (wattwork.scheduler.Handle) of its requests, which the GIL guards: it is held from a submit to
// its handle's being kept, and while events are given to their handles.
class HeldLoop {
 public:
  HeldLoop(const py::object& config, const py::object& engine, uintptr_t native, int threads,
           const std::string& record, int64_t vocab, const std::string& back_mode, int corun_threads)
      : vocab_(vocab) {
    const SchedulerConfig c = config_of(config);
    std::optional<LoopEngine> e;
    if (native) e = native_engine(native, engine);
    else if (!engine.is_none()) e = python_engine(engine, c.block_size);
    loop_.emplace(c, e ? &*e : nullptr, threads, record, mode_of(back_mode), corun_threads);
  }
  // The loop thread may need the GIL to end its step, and a loop that goes away waits for it.
  ~HeldLoop() {
    py::gil_scoped_release release;
    loop_.reset();
  }

  // Keeps the GIL, as cancel() does: the loop's mutex is held for microseconds, and never by who waits for the GIL; to
  // give the GIL up could cost a thread switch.
  int64_t submit(py::object handle, const py::object& tokens, const py::object& max_tokens, const py::object& stop,
                 const py::object& sampling, const py::object& priority, uint64_t tenant, int64_t deadline_ns,
                 int64_t timeout_ns) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    int64_t most_tokens, stop_token_id, class_;
    if (!plain_prompt(tokens, vocab_, prompt_) || !plain(max_tokens.ptr(), 1, kMost, most_tokens) ||
        !plain(stop.ptr(), -1, kMost, stop_token_id) || !plain(priority.ptr(), -kMost - 1, kMost, class_))
      return kNotPlain;
    const int64_t id = loop_->submit(
        prompt_.data(), static_cast<int32_t>(prompt_.size()),
        params_of(static_cast<int32_t>(most_tokens), static_cast<int32_t>(stop_token_id), sampling,
                  static_cast<int32_t>(class_), tenant, deadline_ns, timeout_ns));
    if (id > 0) handles_.emplace(static_cast<uint64_t>(id), std::move(handle));
    return id;
  }

  // Waits for events and gives them to their handles. What now wants to be woken; None: closed, and all told. Who is
  // `eager` leaves it to another who delivers already.
  py::object deliver(int64_t timeout_ms, const py::list& observers, bool eager) {
    bool closed = false, wait = true;
    do {
      py::gil_scoped_release release;
      if (wait) closed = !loop_->wait_events(timeout_ms, eager);
      else std::this_thread::sleep_for(std::chrono::microseconds(100));
    } while (!(wait = !delivering_) && !eager);  // by a cancel, whose observer has let go of the GIL
    if (delivering_) {
      loop_->leave_events();
      return py::list();
    }
    if (closed) return py::none();
    loop_->take_events(events_);  // now: much may have come while this thread waited for the GIL
    return give(observers);
  }

  // Who cancels also delivers, which costs less than to wake the thread that otherwise does. None: it was not live.
  py::object cancel(uint64_t id, const py::list& observers) {
    const bool was_live = loop_->cancel(id, delivering_ ? nullptr : &events_);
    if (delivering_) return was_live ? py::object(py::list()) : py::none();
    py::list waiters = give(observers);
    return was_live ? py::object(waiters) : py::none();
  }

  Loop& loop() { return *loop_; }
  size_t live() const { return handles_.size(); }

 private:
  // First the ends go to the observers, so that who sees an end finds it counted.
  py::list give(const py::list& observers) {
    const struct Delivering {
      bool& flag;
      explicit Delivering(bool& f) : flag(f) { flag = true; }
      ~Delivering() { flag = false; }
    } delivering(delivering_);
    py::list waiters;
    std::vector<py::tuple> ends;
    for (const EndEvent& e : events_.ends) ends.push_back(end_of(e));
    if (!ends.empty() && !observers.empty()) {
      const py::list ended = py::cast(ends);
      for (const py::handle observe : observers) observe(ended);
    }
    for (const TokenEvent& e : events_.tokens)
      if (const auto found = handles_.find(e.id); found != handles_.end()) {
        const py::object& handle = found->second;
        append(slots_.tokens.in(handle), py::int_(e.token));
        append(slots_.times_ns.in(handle), py::int_(e.time_ns));
        collect(slots_.on_token.in(handle), waiters);
      }
    for (size_t i = 0; i < ends.size(); ++i) {
      const auto found = handles_.find(events_.ends[i].id);
      if (found == handles_.end()) continue;
      const py::object handle = std::move(found->second);
      handles_.erase(found);
      Py_SETREF(slots_.end.in(handle), ends[i].release().ptr());
      collect(slots_.on_token.in(handle), waiters);
      collect(slots_.on_end.in(handle), waiters);
    }
    return waiters;
  }

  static void append(PyObject* list, const py::object& item) {
    if (PyList_Append(list, item.ptr()) != 0) throw py::error_already_set();
  }
  // The waiters are taken after what they wait for was written: one that comes later finds it there.
  static void collect(PyObject* mine, py::list& waiters) {
    if (!PyList_CheckExact(mine)) return;  // nobody iterates it
    const auto n = PyList_GET_SIZE(mine);
    for (py::ssize_t i = 0; i < n; ++i) waiters.append(py::reinterpret_borrow<py::object>(PyList_GET_ITEM(mine, i)));
    if (n > 0 && PyList_SetSlice(mine, 0, n, nullptr) != 0) throw py::error_already_set();
  }

  // One of a handle's __slots__, without a search for its name.
  struct Slot {
    py::ssize_t at;
    explicit Slot(const char* name) {
      const py::object member = py::module_::import("wattwork.scheduler.handle").attr("Handle").attr(name);
      if (!Py_IS_TYPE(member.ptr(), &PyMemberDescr_Type)) throw std::logic_error("a handle has slots");
      at = reinterpret_cast<PyMemberDescrObject*>(member.ptr())->d_member->offset;
    }
    PyObject*& in(const py::object& handle) const {
      return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(handle.ptr()) + at);
    }
  };
  const struct {
    Slot tokens{"_tokens"}, times_ns{"_times_ns"}, end{"_end"}, on_token{"_on_token"}, on_end{"_on_end"};
  } slots_;
  const int64_t vocab_;
  std::optional<Loop> loop_;
  std::unordered_map<uint64_t, py::object> handles_;
  std::vector<int32_t> prompt_;  // of the request that is being submitted
  Events events_;                // that are being delivered
  bool delivering_ = false;      // an observer may let go of the GIL meanwhile
};

py::dict stats_of(const LoopStats& s) {
  py::dict d = counters_of(s.scheduler);
  d["decision_hash"] = s.decision_hash;
  d["back_busy_ns"] = s.back_busy_ns;
  d["back_error"] = s.back_error;
  d["back_mode"] = kModes[static_cast<int>(s.back_mode)];
  d["back_share"] = s.back_share;
  d["front_share"] = s.front_share;
  d["yields"] = s.yields;
  d["yield_times_ns"] = py::tuple(py::cast(s.yield_times_ns));
  return d;
}

}  // namespace

void bind_loop(py::module_& m) {
  using NoGil = py::call_guard<py::gil_scoped_release>;
  py::class_<HeldLoop>(m, "Loop")
      .def(py::init<const py::object&, const py::object&, uintptr_t, int, const std::string&, int64_t,
                    const std::string&, int>(),
           py::arg("config"), py::arg("engine"), py::arg("native"), py::arg("threads"), py::arg("record") = "",
           py::arg("vocab") = int64_t{1} << 31, py::arg("back_mode") = "gap", py::arg("corun_threads") = 1)
      .def("submit", &HeldLoop::submit)
      .def("deliver", &HeldLoop::deliver, py::arg("timeout_ms"), py::arg("observers"), py::arg("eager") = false)
      .def_property_readonly("live", &HeldLoop::live)
      .def("cancel", &HeldLoop::cancel)
      .def("set_back", [](HeldLoop& held, std::shared_ptr<Back> back) { held.loop().set_back(std::move(back)); },
           NoGil(), py::arg("back").none(true))
      .def("set_back_mode", [](HeldLoop& held, const std::string& mode) { held.loop().set_back_mode(mode_of(mode)); },
           NoGil())
      .def("throttle", [](HeldLoop& held, double back, double front) { held.loop().throttle(back, front); })
      .def("take_back_error", [](HeldLoop& held) { return held.loop().take_back_error(); })
      .def("set_draining", [](HeldLoop& held, bool draining) { held.loop().set_draining(draining); })
      .def("wait_idle", [](HeldLoop& held, int64_t timeout_ms) { return held.loop().wait_idle(timeout_ms); }, NoGil())
      .def("stats", [](HeldLoop& held) { return stats_of(held.loop().stats()); })
      .def("record_error", [](HeldLoop& held) { return held.loop().record_error(); })
      .def("close", [](HeldLoop& held) { held.loop().close(); }, NoGil());
}

}  // namespace ww::bindings
