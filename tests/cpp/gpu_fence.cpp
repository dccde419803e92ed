// The CPU, the stream of launches, the stream that calls them back and the streams of two fronts, interleaved at random:
// for tests/test_gpu_protocol.py. The CPU's side is csrc/cuda's own (Sweep, Workspace, Fence), on a driver whose streams
// are queues: in each of its calls some of them, or a front's thread, take some steps. A front's thread may wait for the
// whole device, and nobody else gets through a call meanwhile. The units are gpu_world.h's.

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

#include "cuda/sweep.h"
#include "cuda/watch.h"
#include "gpu_world.h"
#include "runtime/pool.h"
#include "sha256d/row.h"

namespace {

using namespace ww;
using gpu::kFlagStride, gpu::u32, gpu::u64;
using cuda::MemOp, cuda::Pointer;

enum { kOk = 0, kLost = 1 };
constexpr u32 kMostSteps = 3'000'000;

struct Event {
  u32 recorded = 0, passed = 0;
};

// A stream: each task is asked to take a step until it says that it is done.
struct Queue {
  std::deque<std::function<bool()>> tasks;
};

// A thread that has the GPU for something else now and then.
struct Front {
  u32 left = 0, phase = 0, depth = 0;
  Queue stream;
};

struct Machine {
  gpu::World world;
  gpu::Random& random = world.random;
  Queue work, signal;
  Front fronts[2];
  cuda::Fence *fence = nullptr, *watched = nullptr;
  bool ordered = true, in_front = false;
  bool locked = false;  // by a front's thread, until all that is queued has been done
  u32 streams = 0, steps = 0, ns_per_step = 0;
  std::vector<std::unique_ptr<u32[]>> memory;

  void step(Queue& queue) {
    if (!queue.tasks.empty() && queue.tasks.front()()) queue.tasks.pop_front();
  }
  void add_kernel(Queue& stream);
  void front_acts(Front& front);
  // False: it goes on and on.
  bool run(u32 n) {
    for (; n; --n) {
      if (++steps > kMostSteps) return world.check(false, "a deadlock"), false;
      locked = locked && !(work.tasks.empty() && signal.tasks.empty() && fronts[0].stream.tasks.empty() &&
                           fronts[1].stream.tasks.empty());
      if (watched && random(16) == 0) watched->look(now_ns());
      const u32 who = random(8);
      if (who < 3) step(work);
      else if (who == 3) step(signal);
      else if (who < 6) step(fronts[who - 4].stream);
      else if (!in_front && !locked && fence && random(4) == 0) front_acts(fronts[who - 6]);
    }
    return true;
  }
  int call() { return run(random(random(4) ? 6 : 40)) ? kOk : kLost; }
  bool enter() {
    while (locked)
      if (!run(1)) return false;
    return true;
  }
  int add(Queue& queue, std::function<bool()> task) {
    if (!enter()) return kLost;
    queue.tasks.push_back(std::move(task));
    return call();
  }
};

Machine* machine = nullptr;

Queue& queue_of(cuda::Stream stream) { return *reinterpret_cast<Queue*>(stream); }
u32* words_at(Pointer at) { return reinterpret_cast<u32*>(at); }

void Machine::add_kernel(Queue& stream) {
  stream.tasks.push_back([this, at = 0u, n = 2 + random(random(8) ? 10 : 150)]() mutable {
    world.fronts += ordered && at == 0, world.fronts -= ordered && at == n - 1;
    return ++at == n;
  });
}

void Machine::front_acts(Front& front) {
  if (!front.left) return;
  in_front = true;
  const auto stream = reinterpret_cast<cuda::Stream>(&front.stream);
  if (front.phase == 0) {
    front.depth = 1 + random(2);
    for (u32 i = 0; i < front.depth; ++i) fence->front_begin(stream);
  } else if (front.phase == 1) {
    add_kernel(front.stream);
    if (front.depth == 2) {  // the inner end opens nothing
      fence->front_end(stream);
      --front.depth;
      add_kernel(front.stream);
    }
    locked = ns_per_step > 1 && random(4) == 0;  // where time goes on fast enough for a fence to lose its patience
  } else {
    fence->front_end(stream);
    --front.left;
  }
  front.phase = (front.phase + 1) % 3;
  in_front = false;
}

// ---- the driver's functions

template <class T> int make(T* made, T thing) { return *made = thing, kOk; }

int copy(u32* to, const u32* from, size_t bytes, Queue& queue) {
  // Line by line, in an order of its own, and what is there when it comes to it.
  std::vector<size_t> lines;
  for (size_t i = 0; i < bytes / 4; i += kFlagStride) lines.push_back(i);
  for (size_t i = lines.size(); i > 1; --i) std::swap(lines[i - 1], lines[machine->random(static_cast<u32>(i))]);
  return machine->add(queue, [=]() mutable {
    for (u32 n = 1 + machine->random(20); n && !lines.empty(); --n, lines.pop_back())
      std::copy_n(from + lines.back(), std::min<size_t>(kFlagStride, bytes / 4 - lines.back()), to + lines.back());
    return lines.empty();
  });
}

bool operate(const MemOp& op) {
  u32& word = *words_at(op.address);
  const bool waits = op.operation == 1;
  if (!waits) word = static_cast<u32>(op.value);
  return !waits || (word & op.value) != 0;
}

int batch(cuda::Stream stream, unsigned count, const MemOp* ops, unsigned) {
  if (!machine->ordered) return cuda::kNotSupported;
  return machine->add(queue_of(stream), [at = size_t{0}, all = std::vector(ops, ops + count)]() mutable {
    return operate(all[at]) && ++at == all.size();
  });
}

template <u32 n> bool units(std::optional<gpu::Launch<n>>& launch) {
  if (!launch) launch.emplace(machine->world);
  launch->step();
  return launch->ended();
}

int launch(cuda::Kernel kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, cuda::Stream stream,
           void** arguments, void**) {
  gpu::World& world = machine->world;
  const auto pointer = [&](int i) { return *static_cast<Pointer*>(arguments[i]); };
  std::memcpy(&world.scan, arguments[0], sizeof world.scan);  // the same for all launches of a search
  world.account = reinterpret_cast<gpu::Account*>(pointer(2)), world.slots = reinterpret_cast<u64*>(pointer(3));
  world.flags = words_at(pointer(4)), world.hits = reinterpret_cast<u64*>(pointer(5));
  world.check(world.rolled == (reinterpret_cast<uintptr_t>(kernel) == 2), "the wrong kernel");
  world.lateness = world.scan.budget ? 40 : 0;
  if (world.rolled)
    return machine->add(queue_of(stream),
                        [l = std::make_shared<std::optional<gpu::Launch<2>>>()] { return units(*l); });
  return machine->add(queue_of(stream),
                      [l = std::make_shared<std::optional<gpu::Launch<1>>>()] { return units(*l); });
}

int wait_for(const std::function<bool()>& done) {
  if (!machine->enter()) return kLost;
  while (!done())
    if (!machine->run(1)) return kLost;
  return kOk;
}

int ask(const std::function<bool()>& done) {
  return !machine->enter() || machine->call() ? int{kLost} : done() ? int{kOk} : cuda::kNotReady;
}

template <class... Args> void* any(int (*function)(Args...)) { return reinterpret_cast<void*>(function); }

int allocate(Pointer* at, size_t bytes) {
  machine->memory.push_back(std::make_unique<u32[]>((bytes + 3) / 4));
  return make(at, reinterpret_cast<Pointer>(machine->memory.back().get()));
}

const std::map<std::string, void*> kFunctions{
    {"cuDeviceGetCount", any(+[](int* n) { return make(n, 1); })},
    {"cuDeviceGetAttribute", any(+[](int* value, int, int) { return make(value, 1); })},
    {"cuStreamCreateWithPriority", any(+[](cuda::Stream* made, unsigned, int) {
       return make(made, reinterpret_cast<cuda::Stream>(machine->streams++ ? &machine->signal : &machine->work));
     })},
    {"cuStreamSynchronize", any(+[](cuda::Stream s) { return wait_for([s] { return queue_of(s).tasks.empty(); }); })},
    {"cuStreamQuery", any(+[](cuda::Stream s) {
       return ask([s] { return queue_of(s).tasks.empty(); });
     })},
    {"cuStreamBatchMemOp_v2", any(batch)},
    {"cuEventCreate", any(+[](cuda::Event* made, unsigned) {
       return make(made, reinterpret_cast<cuda::Event>(new Event));
     })},
    {"cuEventDestroy_v2", any(+[](cuda::Event event) { return delete reinterpret_cast<Event*>(event), int{kOk}; })},
    {"cuEventRecord", any(+[](cuda::Event made, cuda::Stream stream) {
       Event* const event = reinterpret_cast<Event*>(made);
       return machine->add(queue_of(stream), [event, n = ++event->recorded] { return event->passed = n, true; });
     })},
    {"cuEventQuery", any(+[](cuda::Event made) {
       Event* const event = reinterpret_cast<Event*>(made);
       return ask([event] { return event->passed == event->recorded; });
     })},
    {"cuEventSynchronize", any(+[](cuda::Event made) {
       Event* const event = reinterpret_cast<Event*>(made);
       return wait_for([event] { return event->passed == event->recorded; });
     })},
    {"cuMemAlloc_v2", any(allocate)},
    {"cuMemAllocHost_v2", any(+[](void** at, size_t n) { return allocate(reinterpret_cast<Pointer*>(at), n); })},
    {"cuMemcpyHtoDAsync_v2", any(+[](Pointer to, const void* from, size_t bytes, cuda::Stream stream) {
       return copy(words_at(to), static_cast<const u32*>(from), bytes, queue_of(stream));
     })},
    {"cuMemcpyDtoHAsync_v2", any(+[](void* to, Pointer from, size_t bytes, cuda::Stream stream) {
       return copy(static_cast<u32*>(to), words_at(from), bytes, queue_of(stream));
     })},
    {"cuMemsetD32Async", any(+[](Pointer to, unsigned value, size_t words, cuda::Stream stream) {
       return machine->add(queue_of(stream), [=] { return std::fill_n(words_at(to), words, value), true; });
     })},
    {"cuLaunchKernel", any(launch)},
    {"cuModuleGetFunction", any(+[](cuda::Kernel* kernel, cuda::Module, const char* name) {
       return make(kernel, reinterpret_cast<cuda::Kernel>(std::string(name) == "search_rolled" ? 2 : 1));
     })},
};

}  // namespace

// ---- what csrc/cuda links with

namespace ww {

int64_t now_ns() { return int64_t{machine->steps} * machine->ns_per_step; }
uint32_t version_at(const ww_work&, uint64_t number) { return static_cast<uint32_t>(number); }
Row make_row(const ww_work&, uint32_t) { return {}; }

namespace cuda {

void* symbol(const Driver&, const char* name) {
  const auto found = kFunctions.find(name);
  return found == kFunctions.end() ? any(+[] { return int{kOk}; }) : found->second;
}
void fail(const Driver&, const char* function, int) { throw Error(function); }
Driver::Driver() : library(nullptr) {}
const Driver& driver() {
  static const Driver the_driver;
  return the_driver;
}
const Driver* driver_to_end_with() noexcept { return &driver(); }
Watch::Watch(Fence& fence) : fence_(fence) { machine->watched = &fence_; }
Watch::~Watch() { machine->watched = nullptr; }

}  // namespace cuda
}  // namespace ww

// ---- one interleaving

namespace {

// The search to its end, in as many runs as it is stopped.
void sweep(Machine& m, const cuda::Gpu& gpu, const Rect& rect) {
  cuda::Workspace space(gpu);
  cuda::Sweep search(gpu, space, Work{}, rect);
  m.fence = &space.fence();
  u64 taken = 0;
  const u32 patience = m.random(3) ? 1 + m.random(200) : ~0u;
  for (int runs = 0; !search.left().empty() && !m.world.wrong; ++runs) {
    search.run(false, [&] { return m.run(1), runs < 6 && m.random(patience) == 0; },
               [&](const std::vector<uint64_t>& candidates) { return taken += candidates.size(), false; });
    m.world.check(m.work.tasks.empty(), "something is left in the queue");
    if (m.world.account) gpu::check_account(m.world);
    m.world.check(taken == (m.world.account ? m.world.account->found : 0), "not all that was found was taken");
  }
  while (m.fronts[0].left || m.fronts[1].left) m.run(1);  // and their writes find the memory there
  m.fence = nullptr;
}

const char* interleaving(u64 seed) {
  Machine m;
  machine = &m;
  gpu::World& world = m.world;
  world.random.x = seed * 0x9E3779B97F4A7C15 | 1;
  for (int i = 0; i < 4; ++i) m.random(2);
  m.ordered = m.random(8) != 0;
  m.ns_per_step = m.random(2) ? 1 : 100'000;  // so long that a front is too long to wait for, or not
  for (Front& front : m.fronts) front.left = m.random(4);
  world.rolled = m.random(2);
  world.warps = world.rolled ? 2 : 1, world.warp_lanes = world.rolled ? 16 : 32;
  const cuda::Shape shape{32, 1 + m.random(3), 1 + m.random(4), 64, 512, m.random(2) ? 5000u : 0u};
  const cuda::Gpu gpu(0, "any", shape);  // of one SM
  world.units = gpu.blocks();
  const Rect rect{m.random(1000), world.rolled ? 1 + m.random(5) : 1 + m.random(250), 3,
                  world.rolled ? 2 + m.random(40) : 1};
  world.scan.count = rect.count, world.scan.versions = static_cast<u32>(rect.versions), world.scan.chunk = shape.chunk;
  world.tested.resize(rect.count * rect.versions);
  try {
    sweep(m, gpu, rect);
  } catch (const std::exception&) {
    world.check(false, "a call failed");
  }
  for (const u32 times : world.tested) world.check(times == 1, "a pair was not tested once");
  return world.wrong;
}

}  // namespace

// Interleavings `seed` to seed + count - 1. The first that goes wrong, and what; or seed + count.
extern "C" unsigned long long gpu_fence(unsigned long long seed, unsigned long long count, const char** what) {
  for (u64 i = 0; i < count; ++i)
    if ((*what = interleaving(seed + i))) return seed + i;
  return seed + count;
}
