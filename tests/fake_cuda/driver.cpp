// A libcuda.so.1 for machines without a GPU: the functions wattwork uses, with memory of its own, streams that are
// threads, and the search kernels of model.cpp. It refuses what the driver would: calls without a current context,
// addresses that were not allocated, things used after their end. The environment says what it pretends:
//   FAKE_CUDA_VERSION  (13000)      FAKE_CUDA_DEVICES  (1)      FAKE_CUDA_SM  (90)      FAKE_CUDA_SMS  (2)
//   FAKE_CUDA_MEMOPS   (1) 0: without stream memory operations
//   FAKE_CUDA_SEED     (1) of the order in which units work
//   FAKE_CUDA_FAULT    function:code:n   the nth call of that function, and all after it, return that code
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "model.h"

namespace {

using fake::u32;
using fake::u64;

enum { kOk = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3, kNoDevice = 100, kInvalidDevice = 101,
       kInvalidContext = 201, kInvalidHandle = 400, kNotFound = 500, kNotReady = 600, kIllegalAddress = 700, kNotSupported = 801 };

int number(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

std::mutex mutex;  // of all that follows
bool initialized = false;
std::map<std::string, int> calls;
std::map<char*, size_t> device_memory, pinned_memory;
std::set<void*> streams, events;
int retained[64];
u64 launches = 0;
int broken = kOk;  // as a launch left the context
thread_local std::vector<void*> contexts;

// Device addresses are no host addresses: who follows one by mistake does not get far.
constexpr u64 kDevice = u64{1} << 63;

char* within(std::map<char*, size_t>& memory, char* at, size_t bytes) {
  auto block = memory.upper_bound(at);
  if (block == memory.begin()) return nullptr;
  --block;
  return at + bytes <= block->first + block->second ? at : nullptr;
}

char* device_bytes(u64 at, size_t bytes) {
  std::lock_guard lock(mutex);
  return at & kDevice ? within(device_memory, reinterpret_cast<char*>(at & ~kDevice), bytes) : nullptr;
}

// What the environment wants of this call; 0: nothing.
int fault(const char* function) {
  std::lock_guard lock(mutex);
  const int n = ++calls[function];
  const char* const text = std::getenv("FAKE_CUDA_FAULT");
  char name[64];
  int code = 0, from = 1;
  if (!text || std::sscanf(text, "%63[^:]:%d:%d", name, &code, &from) < 2 || std::strcmp(name, function)) return kOk;
  return n >= from ? code : kOk;
}

// At the head of each function: its faults, and what must hold.
int entered(const char* function, bool needs_context = true) {
  if (const int code = fault(function)) return code;
  std::lock_guard lock(mutex);
  if (!initialized) return kNotInitialized;
  if (!needs_context) return kOk;
  return contexts.empty() ? kInvalidContext : broken;
}

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  u64 recorded = 0, passed = 0;
};

// A thread that does what it is told, in order.
class Stream {
 public:
  Stream() : thread_([this] { work(); }) {}
  ~Stream() {
    push({});
    thread_.join();
  }
  void push(std::function<void()> task) {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }
  void synchronize() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return tasks_.empty(); });
  }
  bool is_empty() {
    std::lock_guard lock(mutex_);
    return tasks_.empty();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return !tasks_.empty(); });
      const auto task = tasks_.front();
      lock.unlock();
      if (task) task();
      lock.lock();
      tasks_.pop_front();
      changed_.notify_all();
      if (!task) return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::thread thread_;
};

template <class T> T* live(const std::set<void*>& all, void* thing) {
  std::lock_guard lock(mutex);
  return all.count(thing) ? static_cast<T*>(thing) : nullptr;
}

void copy_words(char* to, const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 4)
    fake::write(reinterpret_cast<u32*>(to + i), fake::read(reinterpret_cast<const u32*>(from + i)));
}

// CUstreamBatchMemOpParams, as cuda.h has it for writing and waiting.
struct MemOp {
  u32 operation;
  u64 address;
  u64 value;
  u32 flags;
  u64 alias, pad;
};
static_assert(sizeof(MemOp) == 48);

// A word of the device's or of pinned memory.
u32* word_at(u64 at) {
  if (at & kDevice) return reinterpret_cast<u32*>(device_bytes(at, 4));
  std::lock_guard lock(mutex);
  return reinterpret_cast<u32*>(within(pinned_memory, reinterpret_cast<char*>(at), 4));
}

void operate(u32* word, const MemOp& op) {
  constexpr u32 kWrite = 2, kGreaterEqual = 0, kEqual = 1;
  const u32 value = static_cast<u32>(op.value);
  if (op.operation == kWrite) return fake::write(word, value);
  for (;;) {
    const u32 now = fake::read(word);
    if (op.flags == kGreaterEqual ? now - value < 1u << 31 : op.flags == kEqual ? now == value : now & value) return;
    std::this_thread::sleep_for(std::chrono::microseconds(5));
  }
}

struct Kernel {
  bool rolled;
};
Kernel plain{false}, rolled{true};
char module_there;

}  // namespace

extern "C" {

int cuGetErrorString(int code, const char** text) {
  switch (code) {
    case kOutOfMemory: *text = "out of memory"; break;
    case kNoDevice: *text = "no CUDA-capable device is detected"; break;
    case kInvalidContext: *text = "invalid device context"; break;
    case kIllegalAddress: *text = "an illegal memory access was encountered"; break;
    case 719: *text = "unspecified launch failure"; break;
    case kNotSupported: *text = "operation not supported"; break;
    case 803: *text = "system has unsupported display driver / cuda driver combination"; break;
    default: *text = nullptr; return kInvalidValue;
  }
  return kOk;
}

int cuDriverGetVersion(int* version) {
  *version = number("FAKE_CUDA_VERSION", 13000);
  return kOk;
}

int cuInit(unsigned) {
  if (const int code = fault("cuInit")) return code;
  if (number("FAKE_CUDA_DEVICES", 1) == 0) return kNoDevice;
  std::lock_guard lock(mutex);
  initialized = true;
  return kOk;
}

int cuDeviceGetCount(int* count) {
  *count = number("FAKE_CUDA_DEVICES", 1);
  return entered("cuDeviceGetCount", false);
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < number("FAKE_CUDA_DEVICES", 1) ? entered("cuDeviceGet", false) : kInvalidDevice;
}

int cuDeviceGetName(char* name, int length, int device) {
  std::snprintf(name, static_cast<size_t>(length), "Fake GPU %d", device);
  return entered("cuDeviceGetName", false);
}

int cuDeviceGetAttribute(int* value, int which, int) {
  const int sm = number("FAKE_CUDA_SM", 90);
  *value = which == 16 ? number("FAKE_CUDA_SMS", 2) : which == 13 ? 1000000 : which == 75 ? sm / 10 : sm % 10;
  return entered("cuDeviceGetAttribute", false);
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = size_t{8} << 30;
  return entered("cuDeviceTotalMem_v2", false);
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  if (const int code = entered("cuDevicePrimaryCtxRetain", false)) return code;
  std::lock_guard lock(mutex);
  ++retained[device];
  *context = &retained[device];
  return kOk;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  std::lock_guard lock(mutex);
  return --retained[device] < 0 ? kInvalidContext : kOk;
}

int cuCtxPushCurrent_v2(void* context) {
  {
    std::lock_guard lock(mutex);
    if (*static_cast<int*>(context) <= 0) return kInvalidContext;
  }
  contexts.push_back(context);
  return kOk;
}

int cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return kInvalidContext;
  *context = contexts.back();
  contexts.pop_back();
  return kOk;
}

int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0, *greatest = -5;
  return entered("cuCtxGetStreamPriorityRange");
}

int cuModuleLoadData(void** module, const void* image) {
  *module = &module_there;
  return image ? entered("cuModuleLoadData") : kInvalidValue;
}

int cuModuleUnload(void* module) { return module == &module_there ? entered("cuModuleUnload") : kInvalidHandle; }

int cuModuleGetFunction(void** function, void*, const char* name) {
  if (std::string(name) == "search_plain") *function = &plain;
  else if (std::string(name) == "search_rolled") *function = &rolled;
  else return kNotFound;
  return entered("cuModuleGetFunction");
}

int cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
  if (flags != 1 || priority > 0 || priority < -5) return kInvalidValue;
  if (const int code = entered("cuStreamCreateWithPriority")) return code;
  *stream = new Stream;
  std::lock_guard lock(mutex);
  streams.insert(*stream);
  return kOk;
}

int cuStreamDestroy_v2(void* stream) {
  Stream* const found = live<Stream>(streams, stream);
  if (!found) return kInvalidHandle;
  delete found;
  std::lock_guard lock(mutex);
  streams.erase(stream);
  return kOk;
}

int cuStreamSynchronize(void* stream) {
  Stream* const found = live<Stream>(streams, stream);
  if (!found) return kInvalidHandle;
  found->synchronize();
  return entered("cuStreamSynchronize");
}

int cuStreamQuery(void* stream) {
  Stream* const found = live<Stream>(streams, stream);
  if (!found) return kInvalidHandle;
  if (const int code = entered("cuStreamQuery")) return code;
  return found->is_empty() ? kOk : kNotReady;
}

int cuStreamBatchMemOp_v2(void* stream, unsigned count, const MemOp* ops, unsigned flags) {
  if (const int code = entered("cuStreamBatchMemOp_v2")) return code;
  if (!number("FAKE_CUDA_MEMOPS", 1)) return kNotSupported;
  Stream* const on = live<Stream>(streams, stream);
  if (!on || !count || count > 256 || flags) return kInvalidValue;
  std::vector<std::pair<u32*, MemOp>> all;
  for (unsigned i = 0; i < count; ++i) {
    const bool waits = ops[i].operation == 1, writes = ops[i].operation == 2;
    u32* const word = word_at(ops[i].address);
    if (!word || ops[i].address % 4 || !(waits || writes) || ops[i].flags > (waits ? 2 : 1)) return kInvalidValue;
    all.push_back({word, ops[i]});
  }
  on->push([all] {
    for (const auto& [word, op] : all) operate(word, op);
  });
  return kOk;
}

// Not the driver's: a front's kernel, of so many microseconds.
int fake_front(void* stream, unsigned us) {
  Stream* const on = live<Stream>(streams, stream);
  if (!on) return kInvalidHandle;
  on->push([us] {
    ++fake::fronts;
    std::this_thread::sleep_for(std::chrono::microseconds(us));
    --fake::fronts;
  });
  return kOk;
}

// Not the driver's: how many units of searches began, and how many of them while a front's kernel was at work.
u64 fake_begun() { return fake::begun; }
u64 fake_begun_beside_a_front() { return fake::begun_beside_a_front; }

int cuEventCreate(void** event, unsigned) {
  if (const int code = entered("cuEventCreate")) return code;
  *event = new Event;
  std::lock_guard lock(mutex);
  events.insert(*event);
  return kOk;
}

int cuEventDestroy_v2(void* event) {
  std::lock_guard lock(mutex);
  if (!events.erase(event)) return kInvalidHandle;
  delete static_cast<Event*>(event);
  return kOk;
}

int cuEventRecord(void* event, void* stream) {
  if (const int code = entered("cuEventRecord")) return code;
  Event* const found = live<Event>(events, event);
  Stream* const on = live<Stream>(streams, stream);
  if (!found || !on) return kInvalidHandle;
  u64 mine;
  {
    std::lock_guard lock(found->mutex);
    mine = ++found->recorded;
  }
  on->push([found, mine] {
    std::lock_guard lock(found->mutex);
    found->passed = mine;
    found->changed.notify_all();
  });
  return kOk;
}

int cuEventQuery(void* event) {
  if (const int code = entered("cuEventQuery")) return code;
  Event* const found = live<Event>(events, event);
  if (!found) return kInvalidHandle;
  std::lock_guard lock(found->mutex);
  return found->passed == found->recorded ? kOk : kNotReady;
}

int cuEventSynchronize(void* event) {
  if (const int code = entered("cuEventSynchronize")) return code;
  Event* const found = live<Event>(events, event);
  if (!found) return kInvalidHandle;
  std::unique_lock lock(found->mutex);
  found->changed.wait(lock, [found] { return found->passed == found->recorded; });
  return kOk;
}

int cuMemAlloc_v2(u64* at, size_t bytes) {
  if (const int code = entered("cuMemAlloc_v2")) return code;
  if (!bytes) return kInvalidValue;
  char* const made = static_cast<char*>(std::malloc(bytes));
  std::memset(made, 0xa5, bytes);
  std::lock_guard lock(mutex);
  device_memory[made] = bytes;
  *at = reinterpret_cast<u64>(made) | kDevice;
  return kOk;
}

int cuMemFree_v2(u64 at) {
  char* const made = reinterpret_cast<char*>(at & ~kDevice);
  std::lock_guard lock(mutex);
  if (!device_memory.erase(made)) return kInvalidValue;
  std::free(made);
  return kOk;
}

int cuMemAllocHost_v2(void** at, size_t bytes) {
  if (const int code = entered("cuMemAllocHost_v2")) return code;
  char* const made = static_cast<char*>(std::malloc(bytes));
  std::lock_guard lock(mutex);
  pinned_memory[made] = bytes;
  *at = made;
  return kOk;
}

int cuMemFreeHost(void* at) {
  std::lock_guard lock(mutex);
  if (!pinned_memory.erase(static_cast<char*>(at))) return kInvalidValue;
  std::free(at);
  return kOk;
}

int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void* stream) {
  if (const int code = entered("cuMemcpyHtoDAsync_v2")) return code;
  char* const bytes_there = device_bytes(to, bytes);
  Stream* const on = live<Stream>(streams, stream);
  if (!on || !bytes_there) return kInvalidValue;
  on->push([=] { copy_words(bytes_there, static_cast<const char*>(from), bytes); });
  return kOk;
}

int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void* stream) {
  if (const int code = entered("cuMemcpyDtoHAsync_v2")) return code;
  const char* const bytes_there = device_bytes(from, bytes);
  Stream* const on = live<Stream>(streams, stream);
  if (!on || !bytes_there) return kInvalidValue;
  {
    std::lock_guard lock(mutex);  // the copy would not be asynchronous
    if (!within(pinned_memory, static_cast<char*>(to), bytes)) return kInvalidValue;
  }
  on->push([=] { copy_words(static_cast<char*>(to), bytes_there, bytes); });
  return kOk;
}

int cuMemsetD32Async(u64 to, unsigned value, size_t words, void* stream) {
  if (const int code = entered("cuMemsetD32Async")) return code;
  u32* const there = reinterpret_cast<u32*>(device_bytes(to, 4 * words));
  Stream* const on = live<Stream>(streams, stream);
  if (!on || !there) return kInvalidValue;
  on->push([=] {
    for (size_t i = 0; i < words; ++i) fake::write(there + i, value);
  });
  return kOk;
}

int cuLaunchKernel(void* kernel, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned block, unsigned block_y,
                   unsigned block_z, unsigned, void* stream, void** arguments, void**) {
  if (const int code = entered("cuLaunchKernel")) return code;
  Stream* const on = live<Stream>(streams, stream);
  if (!on || grid_y * grid_z * block_y * block_z != 1 || block % 32 || block > 1024) return kInvalidValue;
  fake::Launch l{};
  l.rolled = static_cast<Kernel*>(kernel)->rolled, l.blocks = grid, l.threads = block;
  l.sms = static_cast<u32>(number("FAKE_CUDA_SMS", 2));
  std::memcpy(&l.scan, arguments[0], sizeof l.scan);
  u64 at[5];
  for (int i = 0; i < 5; ++i) std::memcpy(&at[i], arguments[1 + i], sizeof at[i]);
  const u64 units = l.rolled ? grid : u64{grid} * block / 32;
  const u64 lanes = l.rolled ? (u64{l.scan.versions} + block - 1) / block * block : 1;  // those beyond compute, too
  l.lanes = reinterpret_cast<ww::gpu::Lane*>(device_bytes(at[0], lanes * sizeof(ww::gpu::Lane)));
  l.account = reinterpret_cast<ww::gpu::Account*>(device_bytes(at[1], sizeof(ww::gpu::Account)));
  l.slots = reinterpret_cast<u64*>(device_bytes(at[2], units * sizeof(u64)));
  l.flags = reinterpret_cast<u32*>(device_bytes(at[3], 4 * ww::gpu::kFlagWords));
  l.hits = reinterpret_cast<u64*>(device_bytes(at[4], l.scan.capacity * sizeof(u64)));
  const bool in_bounds = l.lanes && l.account && l.slots && l.flags && l.hits && l.scan.one == 1 && l.scan.count &&
                         word_at(reinterpret_cast<u64>(l.scan.recall)) && u64{l.scan.first} + l.scan.count <= u64{1} << 32 && (l.rolled || l.scan.versions == 1);
  {
    std::lock_guard lock(mutex);
    l.seed = static_cast<u64>(number("FAKE_CUDA_SEED", 1)) + 1000003 * ++launches;
  }
  // A fault of the kernel itself shows after it was launched, and stays.
  const int failed = in_bounds ? fault("kernel") : kIllegalAddress;
  on->push([=] {
    if (failed) {
      std::lock_guard lock(mutex);
      broken = failed;
    } else {
      fake::run(l);
    }
  });
  return kOk;
}

}  // extern "C"
