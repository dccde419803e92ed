// The one loop thread that joins scheduler, engine and back on a device.
//
// While the scheduler has work it steps the engine; else it runs the back (hashing) until a request arrives; else it
// sleeps. Callers meet the scheduler under a mutex that is never held while the engine or the back works, so that
// submit() and cancel() answer at once. A submit raises the yield flag before it queues. In mode corun a second thread
// runs the back all along, with workers that the loop's own team does without; alone, if the back has use for one
// caller only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/back.h"
#include "scheduler/scheduler.h"

namespace ww {

struct LoopEngine {
  ww_engine native{};
  std::shared_ptr<void> owner;                // kept as long as the loop may step
  std::function<std::string(int)> describe;  // why the last step failed, from its code; empty: ww_strerror
};

// When the back works: where there are no requests; besides, on some workers all along; never.
enum class BackMode { gap, corun, off };

struct LoopStats {
  SchedulerCounters scheduler;
  uint64_t decision_hash;
  int64_t back_busy_ns;  // time in which the back worked, on however many workers; the present run included
  int64_t back_runs;
  BackMode back_mode;
  double back_share, front_share;
  int64_t yields;                      // times the back gave way to a request or a command
  std::string back_error;              // why the back was dropped; empty: it was not
  std::vector<int64_t> yield_times_ns;  // flag stored to back returned; the latest 1024 of them, oldest first
};

class WW_API Loop {
 public:
  // Without an engine it only hashes. `threads` as Team takes it. `record`: where to write the scheduler's log; empty:
  // nowhere. `corun_threads`: how many of the threads the mode corun takes from engine and gaps, which keep one at
  // least. Throws std::invalid_argument, and std::runtime_error if the log cannot be written.
  Loop(const SchedulerConfig& config, const LoopEngine* engine, int threads, const std::string& record = {},
       BackMode mode = BackMode::gap, int corun_threads = 1);
  ~Loop();  // closes
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Any thread may call these. After fork, the child's copy is closed: it does nothing and waits for nothing.
  int64_t submit(const int32_t* tokens, int32_t n, const RequestParams& params);  // an id, or a Reject
  // `into`: gets all that has happened until then, as take_events() does, and who waits for events is not woken.
  bool cancel(uint64_t id, Events* into = nullptr);
  // Returns when the old back has left its quantum. Null: no back.
  void set_back(std::shared_ptr<Back> back);
  // Returns when the back has left its quantum. Corun begins when the step in hand has ended. Throws
  // std::invalid_argument where corun leaves no thread to the engine.
  void set_back_mode(BackMode mode);
  // Shares of time. Of the time in which it might work the back works that share, in slots of some milliseconds (0: it
  // rests); after a step the loop rests for its time x (1 / front - 1). The scheduler's decisions know nothing of it.
  // Throws std::invalid_argument unless back is in [0, 1] and front in (0, 1].
  void throttle(double back, double front);
  // A back that throws is dropped: why, told once. Empty: none was.
  std::string take_back_error();
  // Waits until something has happened that was not taken yet, or for so long. False: closed, and all taken. Who waits
  // here also ends what times out, on time, whatever the engine does. `eager`: first spins, some tens of
  // microseconds, whatever the timeout, with the back away; for who waits for an answer and does nothing else.
  bool wait_events(int64_t timeout_ms, bool eager = false);
  // For who was told of events and does not take them: another who waits is told.
  void leave_events();
  // Moves what has happened into `into`.
  void take_events(Events& into);
  // While draining, submit() answers kRejectDraining. Calls nest.
  void set_draining(bool draining);
  bool wait_idle(int64_t timeout_ms);  // true: no request is left and no block is owned
  LoopStats stats() const;
  // Once closed: what kept the log from being written whole; empty: nothing did.
  std::string record_error() const;
  // Ends the step or quantum in hand, cancels what is left and joins the thread. May be called again.
  void close();

 private:
  struct Impl;
  bool forked() const;
  std::shared_ptr<Impl> impl_;
  int born_;  // the fork generation
};

}  // namespace ww
